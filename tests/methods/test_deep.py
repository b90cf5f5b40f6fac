"""Deep prompts keep the contract, stand where they are told to, and reach encoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import contract
import families
from families import by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.run import encoder_decoder
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import KV, NOTHING, Injection, Mixture
from foreword.methods.deep import Deep
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.tasks.classify import Classify
from foreword.tasks.templates.layout import room_for
from oracles import FAMILIES, FEW, get, scores
from plain import twin

DEEP, OTHER = Deep(length=3), Deep(length=2, start="labels", reparameterize=4)
CARRIED = [n for n in FAMILIES if n not in [f.name for f in families.UNREACHED]]
SEQ2SEQ = [f.name for f in families.SEQ2SEQ]
ROLES = {"encoder": "encoder", "decoder": "self", "cross": "cross"}


def in_a_cache(base: Backbone, injection: Injection, example: Example) -> Tensor:
    return scores(base, twin(base), example, injection)


def logits(base: Backbone, injection: Injection) -> Tensor:
    task = contract.task_on(base).bind(base)
    examples = [task.dev_example(row, room_for(base, injection)).example for row in contract.ROWS]
    ((_, found),) = infer(base, injection, examples, 1000)
    return found


def encoded(base: Backbone, injection: Injection) -> Tensor:
    mixture = Mixture((injection,), (0,))
    carried, _ = base.pass_context(mixture)
    return encoder_decoder.encode(base, [[3, 5, 7, 9]], mixture, carried)[0]


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "bart"])
def test_it_stands_in_every_layer_and_starts_at_random(name: str) -> None:
    base = get(name)
    _, made = contract.built(Deep(), base)
    injection = made()
    assert set(injection.kv) == set(base.sites)
    assert {kv.keys.shape[1] for kv in injection.kv.values()} == {20}
    assert injection.positions == (20 if name == "llama" else 0)
    other = contract.built(Deep(), base, seed=1)[1]()
    for site, kv in injection.kv.items():
        assert not torch.equal(kv.keys, other.kv[site].keys)


@pytest.mark.parametrize("name", by_mechanism(SEQ2SEQ))
@pytest.mark.parametrize(
    "attends", [("encoder",), ("decoder",), ("cross",), ("cross", "encoder"), tuple(ROLES)]
)
def test_each_attention_of_two_stacks_is_on_or_off(name: str, attends: tuple[str, ...]) -> None:
    base = get(name)
    made = contract.built(Deep(length=3, attends=attends), base)[1]()
    roles = {ROLES[each] for each in attends}
    assert set(made.kv) == {n for n, site in base.sites.items() if site.role in roles}
    none = {
        name: KV(torch.zeros(s.heads, 0, s.key_width), torch.zeros(s.heads, 0, s.value_width))
        for name, s in base.sites.items()
    }
    with torch.no_grad():
        found = logits(base, made)
        switched_off = logits(base, replace(made, kv={**none, **made.kv}))
        untouched = logits(base, NOTHING)
        inner, bare = encoded(base, made), encoded(base, NOTHING)
    torch.testing.assert_close(found, switched_off, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, untouched, rtol=1e-3, atol=1e-3)
    assert torch.equal(inner, bare) == ("encoder" not in attends)


@pytest.mark.parametrize("name", by_mechanism(SEQ2SEQ))
def test_each_attention_gets_gradients(name: str) -> None:
    for attends in ROLES:
        contract.gradient_reaches_every_parameter(Deep(length=3, attends=(attends,)), get(name))


@pytest.mark.parametrize(("name", "word"), [("llama", "decoder"), ("bert", "encoder")])
def test_one_stack_may_be_named(name: str, word: str) -> None:
    named = contract.built(Deep(length=3, attends=(word,)), get(name))[1]()
    plain = contract.built(DEEP, get(name))[1]()
    assert [n for n, _ in named.tensors()] == [n for n, _ in plain.tensors()]


def test_it_is_a_prefix_with_other_defaults() -> None:
    base = get("llama")
    deep = contract.built(Deep(length=5, start="text", reparameterize=3), base, seed=2)[1]
    prefix = contract.built(Prefix(length=5, start="text", reparameterize=3), base, seed=2)[1]
    for (name, one), (again, other) in zip(
        deep.named_parameters(), prefix.named_parameters(), strict=True
    ):
        assert (name, True) == (again, torch.equal(one, other))


@pytest.mark.parametrize(
    ("name", "method", "what"),
    [
        ("bert", Deep(attends=("cross",)), "`attends=cross`: bert has no such attention"),
        ("llama", Deep(attends=("encoder",)), "(known: decoder)"),
        ("t5", Deep(attends=("decodr",)), "did you mean 'decoder'? (known: encoder, decoder"),
        ("t5", Deep(attends=()), "`attends=nothing`: t5 has no such attention"),
        ("llama", Deep(length=0), "`length=0`: give from 1 to"),
        ("llama", Deep(length=10**6), "`length=1000000`: give from 1 to"),
        ("llama", Deep(reparameterize=0), "`reparameterize=0`: give a width of at least 1"),
        ("llama", Deep(start="rnadom"), "unknown start 'rnadom'; did you mean 'random'?"),
        ("bloom", DEEP, "cannot take a prefix"),
    ],
)
def test_what_cannot_be_is_refused(name: str, method: Deep, what: str) -> None:
    with pytest.raises(UserError) as caught:
        contract.built(method, get(name))
    assert what in str(caught.value)


def test_it_has_no_place_in_a_template() -> None:
    task = Classify(template="[soft:2]{text}:", labels=contract.LABELS).bind(get("llama"))
    with pytest.raises(
        UserError, match=r"the template places virtual tokens, .* `method=soft` or ptuning"
    ):
        Deep().build(task, contract.ROWS, 0)


# The contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism([f.name for f in families.CAUSAL]))
def test_equals_keys_and_values_in_the_models_cache(name: str) -> None:
    contract.equals_a_plain_oracle(DEEP, get(name), in_a_cache)


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_gradient_reaches_every_parameter(name: str) -> None:
    contract.gradient_reaches_every_parameter(DEEP, get(name))


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_it_goes_with_a_head(name: str, tmp_path: Path) -> None:
    both = Several((DEEP, Head()))
    contract.gradient_reaches_every_parameter(both, get(name))
    contract.a_file_gives_the_same_prompt(both, get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_a_mixed_batch_equals_single_rows(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(DEEP, OTHER, get(name))


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_checkpointing_changes_nothing(name: str) -> None:
    if get(name).model.supports_gradient_checkpointing:
        contract.checkpointing_changes_nothing(DEEP, get(name))


@pytest.mark.parametrize("name", by_mechanism([n for n in FEW if n in CARRIED]))
def test_a_file_gives_the_same_prompt(name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(DEEP, get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism([n for n in FEW if n in CARRIED]))
def test_the_backbone_is_untouched(name: str) -> None:
    contract.the_backbone_is_untouched(DEEP, get(name))


@pytest.mark.parametrize("family", families.RECURRENT, ids=lambda family: family.name)
def test_a_recurrent_model_carries_it(family: families.Family, tmp_path: Path) -> None:
    base = families.backbone(family)
    contract.gradient_reaches_every_parameter(DEEP, base)
    contract.a_file_gives_the_same_prompt(DEEP, base, tmp_path)
