"""Merged prompts are what a plain model gives with the parts put together by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import contract
from composed import drawn, first_example, logits, prompt
from foreword.compose.merge import average, concatenate
from foreword.errors import UserError
from foreword.injection import KV, ClassHead, Injection
from foreword.methods.adapter import Adapter
from foreword.methods.deep import Deep
from foreword.methods.full import Full
from foreword.methods.head import Head as HeadMethod
from foreword.methods.ia3 import IA3
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from oracles import embeddings_in_front, get, scores
from plain import twin

SOFT, LONGER = Soft(length=3), Soft(length=5, start="vocabulary")
PREFIX, OTHER = Prefix(length=3), Prefix(length=5, start="random")
COSINE = HeadMethod(head_form="cosine")
LORA, FLATTER = Lora(rank=4), Lora(rank=2, init="gaussian")


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# One after the other ----------------------------------------------------------------------------


def test_virtual_tokens_stand_one_after_the_other() -> None:
    parts = [prompt(SOFT), prompt(LONGER, 1)]
    made = concatenate(parts).injection
    assert made.leading == 8
    both = torch.cat([part.injection.embeds for part in parts if part.injection.embeds is not None])
    by_hand = Injection(embeds=both, leading=8)
    example = first_example(get("llama"), by_hand)
    same(logits(get("llama"), made), embeddings_in_front(get("llama"), by_hand, example))


def test_keys_and_values_stand_in_one_cache_and_rows_begin_after_the_longest() -> None:
    base = get("llama")
    one, two = (p.injection for p in (prompt(PREFIX), prompt(OTHER, 1)))
    made = concatenate([prompt(PREFIX), prompt(OTHER, 1)]).injection
    kv = {
        site: KV(
            torch.cat([one.kv[site].keys, two.kv[site].keys], 1),
            torch.cat([one.kv[site].values, two.kv[site].values], 1),
        )
        for site in one.kv
    }
    by_hand = Injection(kv=kv, positions=5)
    same(logits(base, made), scores(base, twin(base), first_example(base, by_hand), by_hand))
    assert made.positions == max(one.positions, two.positions) == 5


def test_the_order_counts_for_virtual_tokens_and_for_keys_of_equal_length_it_does_not() -> None:
    base, soft = get("llama"), [prompt(SOFT), prompt(SOFT, 1, task=None)]
    soft[1] = replace(soft[1], injection=prompt(LONGER, 1).injection)
    there, back = (logits(base, concatenate(p).injection) for p in (soft, soft[::-1]))
    assert not torch.allclose(there, back, rtol=1e-3)
    kv = [prompt(PREFIX), prompt(Prefix(length=3, start="random"), 1)]
    same(*(logits(base, concatenate(p).injection) for p in (kv, kv[::-1])))


def with_updates(updates: list[tuple[float, Injection]]) -> nn.Module:
    """A plain model whose weights have low-rank products added by hand."""
    model = twin(get("llama"))
    for weight, injection in updates:
        for name, (patch,) in injection.patches.items():
            model.get_submodule(name).weight.data += weight * patch.up @ patch.down
    return model


def test_low_rank_updates_are_added_up() -> None:
    base, parts = get("llama"), [prompt(LORA), prompt(FLATTER, 1)]
    made = concatenate(parts).injection
    model = with_updates([(1.0, part.injection) for part in parts])
    same(logits(base, made), scores(base, model, first_example(base, made)))  # type: ignore[arg-type]


def test_prompts_of_different_methods_stand_together() -> None:
    base, parts = get("llama"), [prompt(PREFIX), prompt(LORA, 1)]
    made = concatenate(parts).injection
    model = with_updates([(1.0, parts[1].injection)])
    example = first_example(base, made)
    same(logits(base, made), scores(base, model, example, parts[0].injection))  # type: ignore[arg-type]
    three = concatenate([*parts, prompt(SOFT, 2)])
    assert three.injection.leading == 3
    assert three.method["parts"][2]["name"] == "soft"


def test_a_prefix_of_upper_layers_stays_where_it_is() -> None:
    upper = prompt(Prefix(length=2, first_layer=2), 1)
    made = concatenate([prompt(PREFIX), upper]).injection
    assert [own.keys.shape[1] for own in made.kv.values()] == [3, 3, 5]
    assert torch.isfinite(logits(get("llama"), made)).all()


def test_the_task_and_the_history_are_the_first_ones() -> None:
    first = prompt(SOFT, scores={"dev": {"accuracy": 90.0, "rows": 4}})
    made = concatenate([first, prompt(SOFT, 1, task=replace(first.task, template="{text}\nIs:"))])
    assert made.task == first.task
    assert made.data["demonstrations"] == first.data["demonstrations"]
    assert made.scores == {}
    assert made.method["name"] == "concat"
    assert len(made.predict(contract.TEXTS)) == 4


# Averages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [SOFT, PREFIX, COSINE, Several((Deep(length=2), HeadMethod())), Full()]
)
def test_tensors_are_averaged_number_by_number(method: Any) -> None:
    parts = [prompt(method), prompt(method, 1), prompt(method, 2)]
    made = average(parts, (0.2, 0.5, 0.3)).injection
    tables = [dict(part.injection.tensors()) for part in parts]
    found = dict(made.tensors())
    assert found.keys() == tables[0].keys()
    for name, tensor in found.items():
        by_hand = sum(w * t[name].numpy() for w, t in zip((0.2, 0.5, 0.3), tables, strict=True))
        same(tensor, torch.tensor(by_hand))
    assert (made.leading, made.positions) == (
        parts[0].injection.leading,
        parts[0].injection.positions,
    )


def test_low_rank_updates_of_any_rank_are_averaged_as_the_products_that_they_are() -> None:
    base, parts = get("llama"), [prompt(LORA), prompt(FLATTER, 1)]
    made = average(parts, (0.3, 0.7)).injection
    model = with_updates([(0.3, parts[0].injection), (0.7, parts[1].injection)])
    same(logits(base, made), scores(base, model, first_example(base, made)))  # type: ignore[arg-type]


def test_rescaled_states_are_averaged_in_one_patch_and_multiplied_one_after_the_other() -> None:
    base, parts = get("llama"), [prompt(IA3()), prompt(IA3(), 1, injection=None)]
    parts[1] = replace(parts[1], injection=parts[0].injection.map(lambda t: 3 * t + 0.25))
    one, two = (part.injection.patches for part in parts)
    for made, by_hand in (
        (average(parts, (0.4, 0.6)), lambda a, b: 0.4 * a + 0.6 * b),
        (concatenate(parts), lambda a, b: (1 + a) * (1 + b) - 1),
    ):
        whole = {
            name: (replace(own[0], up=by_hand(own[0].up, two[name][0].up)),)
            for name, own in one.items()
        }
        same(logits(base, made.injection), logits(base, Injection(patches=whole)))
    assert all(len(own) == 1 for own in average(parts).injection.patches.values())


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_adapters_of_any_width_are_averaged_as_the_functions_that_they_are(placement: Any) -> None:
    base = get("llama")
    methods = [Adapter(placement, bottleneck=n, activation="silu") for n in (3, 5)]
    parts = [prompt(methods[0]), prompt(methods[1], 1)]
    made = average(parts, (0.4, 0.6)).injection
    model, read = twin(base), {}

    def keep(module: nn.Module, args: Any) -> None:
        read[module] = args[0]

    for name in parts[0].injection.patches:
        own = [part.injection.patches[name][0] for part in parts]
        if own[0].reads is not None:
            model.get_submodule(own[0].reads).register_forward_pre_hook(keep)

        def add(module: nn.Module, args: Any, output: Any, own: Any = own) -> Any:
            whole = output[0] if isinstance(output, tuple) else output
            x = whole if own[0].reads is None else read[model.get_submodule(own[0].reads)]
            more = [
                nn.functional.silu(x @ p.down.T + p.down_bias) @ p.up.T + p.up_bias for p in own
            ]
            whole = whole + (0.4 * more[0] + 0.6 * more[1]).view(whole.shape)
            return (whole, *output[1:]) if isinstance(output, tuple) else whole

        model.get_submodule(name).register_forward_hook(add)
    same(logits(base, made), scores(base, model, first_example(base, made)))


def test_weights_are_equal_where_none_are_given_and_a_part_of_weight_zero_has_no_say() -> None:
    parts = [prompt(LORA), prompt(FLATTER, 1)]
    made = average(parts)
    assert made.method["weights"] == [0.5, 0.5]
    alone = average(parts, (1.0, 0.0)).injection
    same(logits(get("llama"), alone), logits(get("llama"), parts[0].injection))
    gated = average([prompt(Lora(rank=2, gate=True)), parts[0]]).injection
    assert all(len(own) == 2 for own in gated.patches.values())
    assert all(own[0].gate is not None for own in gated.patches.values())


def test_parts_are_not_changed() -> None:
    parts = [prompt(Several((SOFT, LORA))), prompt(Several((SOFT, LORA)), 1)]
    before = copy.deepcopy([dict(part.injection.tensors()) for part in parts])
    made = average(parts)
    for _, tensor in made.injection.tensors():
        tensor.add_(1)
    for part, old in zip(parts, before, strict=True):
        assert all(torch.equal(t, old[n]) for n, t in part.injection.tensors())


# Mistakes ---------------------------------------------------------------------------------------


def placed() -> Prompt:
    task = Classify(template="{text} [soft:2] :", labels=contract.LABELS)
    return prompt(SOFT, task=task, injection=Injection(embeds=drawn(2, 32), leading=0))


def headed(*labels: str) -> Prompt:
    task = Classify(template="{text} :", labels={name: f" {name}" for name in labels})
    own = Injection(head=ClassHead(drawn(len(labels), 32), drawn(len(labels))))
    return prompt(SOFT, task=task, injection=own)


GATED = Adapter(bottleneck=2, gate=True)
REFUSED: dict[str, tuple[Any, list[Any], str]] = {
    "one alone": (concatenate, [(SOFT, 0)], r"1 prompt cannot be composed; give 2 or more"),
    "another backbone": (
        concatenate,
        [(SOFT, 0), prompt(SOFT, name="qwen2")],
        r"prompt 2 was tuned on qwen2 .* and prompt 1 on llama",
    ),
    "another task": (
        average,
        [(SOFT, 0), prompt(SOFT, task=Generate(template="{text}"))],
        "prompt 2 is for task generate, and prompt 1 for classify",
    ),
    "tokens in a template": (concatenate, [(SOFT, 0), placed()], "prompt 2 has virtual tokens in"),
    "two heads": (concatenate, [headed("a", "b"), headed("a", "b")], "bring a head, of which"),
    "two full models": (concatenate, [(Full(), 0), (Full(), 1)], "bring the model's own weights"),
    "heads of other labels": (
        average,
        [headed("a", "b"), headed("b", "c")],
        "the head of prompt 2 scores b, c, and the task of prompt 1 has a, b",
    ),
    "a head of another task": (concatenate, [(SOFT, 0), headed("b", "c")], "the head of prompt 2"),
    "other lengths": (
        average,
        [(SOFT, 0), (LONGER, 1)],
        r"'embeds' has shape \(3, 32\) in prompt 1 and \(5, 32\) in prompt 2; average prompts of",
    ),
    "other methods": (
        average,
        [(SOFT, 0), (PREFIX, 1)],
        "prompt 1 has 'embeds', which prompt 2 lacks",
    ),
    "more layers": (
        average,
        [(Prefix(length=3, first_layer=1), 0), (PREFIX, 1)],
        r"prompt 2 has 'kv\..*', which prompt 1 lacks",
    ),
    "other places": (
        average,
        [(SOFT, 0), prompt(SOFT, injection=Injection(embeds=drawn(3, 32), leading=0))],
        "prompt 2 has 0 leading virtual tokens and 0 positions, and prompt 1 3 and 0",
    ),
    "gated adapters": (average, [(GATED, 0), (GATED, 1)], "have no exact average"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_says_why(case: str) -> None:
    merge, given, what = REFUSED[case]
    parts = [each if isinstance(each, Prompt) else prompt(*each) for each in given]
    with pytest.raises(UserError, match=what) as caught:
        merge(parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ((0.5,), r"1 weight \(0.5\) for 2 prompts; give one for each"),
        ((0.3, 0.8), r"weights 0.3 0.8 add up to 1.1; give weights that add up to 1"),
        ((-0.5, 1.5), r"weights -0.5 1.5: give numbers that are not negative"),
        ((float("nan"), 0.5), "weights nan 0.5: give numbers"),
        ((), r"0 weights"),
    ],
)
def test_weights_that_are_none_are_named(weights: tuple[float, ...], what: str) -> None:
    with pytest.raises(UserError, match=what):
        average([prompt(SOFT), prompt(SOFT, 1)], weights)
