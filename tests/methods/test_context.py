"""Context tuning: a row never sees its own demonstration, and nothing else is taken from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contexts import CARRIED, DROPPING, ROWS, SHOWN, bound, built, chance
from torch import Tensor

import contract
import families
from families import backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.context import Context
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.parts.starts import start_ids
from foreword.methods.prefix import Prefix
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.tasks.templates.layout import room_for
from oracles import FAMILIES, FEW, get, scores
from plain import twin

# What it starts as ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_it_starts_as_a_prefix_of_the_same_demonstrations(name: str) -> None:
    """A prefix of demonstrations, that is, of their text read as a whole."""
    found = built(SHOWN, name)()
    expected = Prefix(shots=3).build(bound(name), ROWS, 0)()
    assert found.positions == expected.positions
    assert {n for n, _ in found.tensors()} == {n for n, _ in expected.tensors()}
    for (_, one), (_, other) in zip(found.tensors(), expected.tensors(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi"])
def test_it_starts_as_the_text_of_the_demonstrations_in_front(name: str) -> None:
    base, task = get(name), bound(name)
    shown = "".join(map(task.demonstration, choose_demonstrations(task, ROWS, 3, 0)))
    model = twin(base)
    injection = built(SHOWN, name)()
    for row in ROWS[:3]:
        example = task.dev_example(row, 400).example
        ((_, found),) = infer(base, injection, [example])
        ids = (*base.text.ids(shown), *example.ids)
        plainly = replace(example, ids=ids, slot=len(ids))
        expected = scores(base, model, plainly, NOTHING)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_positions_belong_to_the_demonstrations_that_they_were_read_of() -> None:
    base, task, made = get("llama"), bound("llama"), built(SHOWN)
    shown = [task.demonstration(row) for row in choose_demonstrations(task, ROWS, 3, 0)]
    ids, _ = start_ids("demonstrations", task, ROWS, length=None, text=None, shots=3, seed=0)
    assert made.owners.tolist() == sorted(made.owners.tolist())
    for number, text in enumerate(shown):
        own = [i for i, owner in zip(ids, made.owners.tolist(), strict=True) if owner == number]
        assert base.text.decode(own) == text


def test_first_tokens_of_the_tokenizer_belong_to_none() -> None:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    from foreword.backbone.tokenizer import Text

    base = backbone(FAMILIES["llama"])
    inner = type(base.text.tokenizer.backend_tokenizer).from_str(
        base.text.tokenizer.backend_tokenizer.to_str()
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<mask> $A", special_tokens=[("<mask>", 2)]
    )
    base.text = Text(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>"))
    task = contract.task_on(base).bind(base)
    made = Context(shots=2, token_dropout=0.99, choice="first").build(task, ROWS, 0)
    assert made.owners.tolist().count(-1) == 1
    for seed in range(20):
        for part in Mixture.of(made.training_on([0, 5], chance(seed)), 2).parts:
            for site, kv in part.kv.items():
                assert torch.equal(kv.keys[:, 0], made().kv[site].keys[:, 0])


def test_all_rows_are_shown_where_there_are_fewer_than_sixteen() -> None:
    task = bound("llama")
    assert Context().settled(task, ROWS) == Context(shots=len(ROWS))
    assert Context().settled(task, [*ROWS, *ROWS]) == Context(shots=16)
    made = Context().build(task, ROWS[:5], 0)
    assert all(made.hidden)


@pytest.mark.parametrize("choice", ["balanced", "random", "first"])
def test_which_rows_are_shown(choice: Any) -> None:
    base, task = get("llama"), bound("llama")
    texts = [task.demonstration(row) for row in ROWS]
    seen = []
    for seed in range(6):
        made = Context(shots=3, choice=choice).build(task, ROWS, seed)
        shown = [n for n, own in enumerate(made.hidden) if own]
        assert len(shown) == 3
        ids = [i for n in range(3) for i in base.text.ids(texts[made.hidden.index((n,))])]
        torch.testing.assert_close(
            made().kv["model.layers.0.self_attn"].keys,
            base.kv(ids)["model.layers.0.self_attn"].keys,
        )
        labels = {ROWS[n].fields["label"] for n in shown}
        seen.append(shown)
        if choice == "balanced":
            assert labels == {"good", "bad", "fine"}
        if choice == "first":
            assert shown == [0, 1, 2]
    assert (len({*map(tuple, seen)}) == 1) == (choice == "first")


# What cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (Context(shots=11), "11 demonstrations asked for, and there are 10 rows"),
        (Context(shots=0), "0 demonstrations asked for"),
        (Context(shots=2, choice="frist"), "`choice=frist`: unknown; did you mean 'first'?"),  # type: ignore[arg-type]
        (Context(shots=2, token_dropout=1.0), "`token_dropout=1`: give a probability, from 0"),
        (Context(shots=2, token_dropout=-0.1), "`token_dropout=-0.1`: give a probability"),
        (Context(shots=2, token_dropout=float("nan")), "`token_dropout=nan`: give a probability"),
    ],
)
def test_settings_out_of_range_are_refused(method: Context, what: str) -> None:
    with pytest.raises(UserError) as caught:
        method.build(bound("llama"), ROWS, 0)
    assert what in str(caught.value)


def test_it_has_no_place_in_a_template() -> None:
    task = bound("llama", "[soft:2]{text}:")
    with pytest.raises(UserError, match=r"the template places virtual tokens"):
        SHOWN.build(task, ROWS, 0)


@pytest.mark.parametrize("family", families.RECURRENT, ids=lambda family: family.name)
def test_a_model_of_one_state_says_so(family: families.Family) -> None:
    base = backbone(family)
    with pytest.raises(
        UserError, match=r"keeps one state of all that it has read, .* use `method=prefix`$"
    ):
        SHOWN.build(contract.task_on(base).bind(base), ROWS, 0)


@pytest.mark.parametrize("name", by_mechanism([f.name for f in families.UNREACHED]))
def test_a_model_that_takes_no_prefix_says_so(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot take a prefix: .* `method=soft` works"):
        SHOWN.build(bound(name), ROWS, 0)


def test_more_demonstrations_than_positions_are_told_with_what_fits() -> None:
    base = backbone(FAMILIES["llama"], max_position_embeddings=70)
    task, alike = contract.task_on(base).bind(base), [ROWS[0]] * 10
    size = len(base.text.ids(task.demonstration(ROWS[0])))
    fit = 70 // size - 1
    what = f"^10 demonstrations take {10 * size} tokens, and the model has 70 positions"
    with pytest.raises(
        UserError, match=f"{what}; with room for a row {fit} fit: give `shots={fit}`$"
    ):
        Context(shots=10).build(task, alike, 0)
    assert room_for(base, Context(shots=fit).build(task, alike, 0)()) >= size
    with pytest.raises(UserError, match=f"give `shots={fit}`$"):
        Context(shots=fit + 1).build(task, alike, 0)
    tiny = backbone(FAMILIES["llama"], max_position_embeddings=10)
    with pytest.raises(UserError, match=r"with room for a row 0 fit, so take `method=soft`"):
        Context(shots=1).build(contract.task_on(tiny).bind(tiny), ROWS, 0)


# The contract ---------------------------------------------------------------------------------


def in_a_cache(base: Backbone, injection: Injection, example: Example) -> Tensor:
    return scores(base, twin(base), example, injection)


@pytest.mark.parametrize("name", by_mechanism([f.name for f in families.CAUSAL]))
def test_equals_keys_and_values_in_the_models_cache(name: str) -> None:
    contract.equals_a_plain_oracle(DROPPING, get(name), in_a_cache)


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_gradient_reaches_every_parameter(name: str) -> None:
    contract.gradient_reaches_every_parameter(DROPPING, get(name))


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_a_mixed_batch_equals_single_rows(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(DROPPING, SHOWN, get(name))


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_checkpointing_changes_nothing(name: str) -> None:
    if get(name).model.supports_gradient_checkpointing:
        contract.checkpointing_changes_nothing(DROPPING, get(name))


@pytest.mark.parametrize("name", by_mechanism([n for n in FEW if n in CARRIED]))
def test_a_file_gives_the_same_prompt(name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(DROPPING, get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism([n for n in FEW if n in CARRIED]))
def test_the_backbone_is_untouched(name: str) -> None:
    contract.the_backbone_is_untouched(DROPPING, get(name))


def test_it_goes_with_a_head() -> None:
    contract.gradient_reaches_every_parameter(Several((DROPPING, Head())), get("llama"))
