"""Full fine-tuning keeps the contract, and equals a model that was given the weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import contract
from families import REACHED, UNREACHED, backbone, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.methods.full import Full
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.training.settings import Training
from plain import twin
from toys import toy_run

FAMILIES = {family.name: family for family in [*REACHED, *UNREACHED]}
FEW = ("llama", "gpt2", "bert", "albert", "t5", "bloom")


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def weights_in_place(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Load the weights into a model of its own, and run one branch at a time."""
    model, found = twin(base), []
    unknown = model.load_state_dict(dict(injection.weights), strict=False).unexpected_keys
    assert not unknown
    for b, j in example.targets:
        branch = list(example.branches[b])
        ids = [*example.ids[: example.slot], *branch, *example.ids[example.slot :]]
        if base.architecture == "encoder-decoder":
            said = torch.tensor([[model.config.decoder_start_token_id, *branch]])
            out = model(input_ids=torch.tensor([example.ids]), decoder_input_ids=said)
            found.append(out.logits[0, 1 + j])
        else:
            found.append(model(torch.tensor([ids])).logits[0, example.slot + j])
    return torch.stack(found)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_weights_equal_a_model_that_has_them(name: str) -> None:
    contract.equals_a_plain_oracle(Full(), get(name), weights_in_place)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_gradient_reaches_every_parameter(name: str) -> None:
    contract.gradient_reaches_every_parameter(Full(), get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_a_file_gives_the_same_prompt(name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(Full(), get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_the_backbone_is_untouched(name: str) -> None:
    contract.the_backbone_is_untouched(Full(), get(name))


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_rows_of_another_prompt_stand_beside_it(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(Full(), Soft(length=3), get(name))


@pytest.mark.parametrize("name", ["gpt2", "bert", "bart"])
def test_it_stands_beside_a_prefix(name: str) -> None:
    both = Several((Prefix(length=3), Full()))
    contract.gradient_reaches_every_parameter(both, get(name))


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_checkpointing_changes_nothing(name: str) -> None:
    if get(name).model.supports_gradient_checkpointing:
        contract.checkpointing_changes_nothing(Full(), get(name))


def test_the_gradient_is_that_of_a_model_that_is_trained() -> None:
    base = get("llama")
    task, trainable = contract.built(Full(), base)
    loss = contract.backward(task, trainable)
    model = twin(base).requires_grad_(True)
    items = [task.train_example(row, 100) for row in contract.ROWS]
    logits = []
    for item in items:
        for b, j in item.example.targets:
            ids = torch.tensor([[*item.example.ids, *item.example.branches[b]]])
            logits.append(model(ids).logits[0, len(item.example.ids) + j])
    scores = torch.stack(logits)[:, list(task.tokens or ())]
    plain = task.losses(scores, items).sum()
    plain.backward()
    assert loss == pytest.approx(float(plain.detach()), rel=1e-5)
    named = dict(model.named_parameters())
    for name, own in zip(trainable.names, trainable.weights, strict=True):
        torch.testing.assert_close(own.grad, named[name].grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart", "bloom"])
def test_decoding_is_that_of_a_model_that_has_the_weights(name: str) -> None:
    base = get(name)
    injection = contract.trained(Full(), base)()
    model = twin(base)
    model.load_state_dict(dict(injection.weights), strict=False)
    other = Backbone(model, base.text.tokenizer, architecture=base.architecture, name=name)
    rows = [[5, 9, 30, 41], [7, 12], [3, 4, 5, 6, 7, 8, 90]]
    for decoding in (Decoding(max_new_tokens=6), Decoding(max_new_tokens=6, beams=3)):
        expected = decode(other, rows, NOTHING, decoding)
        assert decode(base, rows, injection, decoding) == expected
        # In one batch with rows of the frozen model and of a prefix or a soft prompt.
        soft = contract.trained(Soft(length=3), base)()
        mixed = decode(base, rows, Mixture((soft, injection, NOTHING), (1, 0, 2)), decoding)
        alone = [decode(base, [row], part, decoding)[0]
                 for row, part in zip(rows, (injection, soft, NOTHING), strict=True)]  # fmt: skip
        assert mixed == alone


def test_weights_that_a_model_holds_fixed_are_not_trained() -> None:
    _, trainable = contract.built(Full(), get("marian"))
    assert not any("embed_positions" in name for name in trainable.names)


def test_quantized_weights_cannot_be_trained() -> None:
    base = backbone(FAMILIES["llama"])
    base.quantized = "int8"
    with pytest.raises(UserError, match=r"quantized to int8 .* leave out `quantize`"):
        contract.built(Full(), base)


def test_a_step_in_several_passes_is_that_of_one() -> None:
    whole, parted = (
        toy_run(
            None,
            method=Full(rate=1e-3),
            training=Training(epochs=1, batch_size=6, token_budget=budget),
        ).injection.weights
        for budget in (None, 32)
    )
    for name, weight in whole.items():
        assert (parted[name] - weight).abs().mean() < 1e-5  # a step moves each by up to 1e-3
