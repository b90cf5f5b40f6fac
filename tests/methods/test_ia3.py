"""IA3 is the real peft's, in its scores and its gradients, and rescales what the paper says."""

from __future__ import annotations

import peft
import pytest
import torch
from peft.tuners.ia3 import IA3Layer
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedModel

import contract
from families import CAUSAL, RECURRENT, UNREACHED, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.inside.projections import find_projections
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.ia3 import IA3, Vectors
from foreword.tasks.templates.layout import room_for
from oracles import get, scores
from plain import twin
from quick import need_library

MECHANISMS = ["llama", "qwen3", "gpt2", "gpt_neox", "albert", "bert", "t5", "mistral-window"]
"""Layers of their own for keys and values, fused ones in two layouts, shared ones, two stacks."""


def with_peft(base: Backbone, injection: Injection) -> tuple[PreTrainedModel, dict[str, IA3Layer]]:
    """A plain model with the real peft's layers in it, holding the same vectors."""
    model = twin(base)
    fed = [name for name, (patch,) in injection.patches.items() if patch.adds_to == "input"]
    config = peft.IA3Config(
        target_modules=list(injection.patches),
        feedforward_modules=fed,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    peft.inject_adapter_in_model(config, model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, IA3Layer)}
    assert layers.keys() == injection.patches.keys()
    for name, (patch,) in injection.patches.items():
        vector = layers[name].ia3_l["default"]
        vector.data.copy_((1 + patch.up).view(vector.shape))
    return model.to(base.dtype).eval(), layers


def by_peft(base: Backbone, injection: Injection, example: Example) -> Tensor:
    return scores(base, with_peft(base, injection)[0], example, injection)


@pytest.mark.parametrize("name", MECHANISMS)
def test_scores_are_the_real_pefts(name: str) -> None:
    contract.equals_a_plain_oracle(IA3(), get(name), by_peft)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "bert"])
def test_gradients_are_the_real_pefts(name: str) -> None:
    base = get(name)
    task, trainable = contract.built(IA3(), base)
    assert isinstance(trainable, Vectors)
    for vector in trainable.vectors:
        vector.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    injection = trainable()
    example = task.dev_example(contract.ROWS[0], room_for(base, injection)).example
    view = base.with_changes(injection)
    found = view.logits(view.states([example], injection))
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    mine = torch.autograd.grad((found * weights).sum(), list(trainable.vectors))
    model, layers = with_peft(base, injection)
    vectors = [layers[each.module].ia3_l["default"] for each in trainable.rescaled]
    for vector in vectors:
        vector.requires_grad_()
    expected = scores(base, model, example)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    theirs = torch.autograd.grad((expected * weights).sum(), vectors)
    for each, one, other in zip(trainable.rescaled, mine, theirs, strict=True):
        torch.testing.assert_close(one, other.flatten()[each.channels], rtol=1e-3, atol=1e-4)


def test_a_fused_layer_keeps_its_queries() -> None:
    """GPT-2 lays out all queries, all keys, all values; GPT-NeoX the three head by head."""
    flat, by_head = (find_projections(get(n).model, get(n).sites)[0] for n in ("gpt2", "gpt_neox"))
    assert flat.channels.tolist() == list(range(32, 96))
    assert by_head.channels.tolist() == [c for c in range(96) if c % 24 >= 8]
    _, trainable = contract.built(IA3(), get("gpt_neox"))
    for vector in trainable.parameters():
        vector.data.fill_(0.5)
    (patch,) = trainable().patches["gpt_neox.layers.0.attention.query_key_value"]
    assert torch.equal(patch.up.nonzero()[:, 0], by_head.channels)


def test_training_begins_at_the_model_itself() -> None:
    for name in ("llama", "gpt2", "t5"):
        task, trainable = contract.built(IA3(), get(name))
        expected = contract.probabilities(task, Injection())
        torch.testing.assert_close(contract.probabilities(task, trainable()), expected)


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
def test_a_quantized_model_is_rescaled_at_the_same_modules(kind: str) -> None:
    need_library(kind)
    base = backbone(CAUSAL[0])
    whole = find_projections(base.model, base.sites)
    small = Backbone(
        base.model, base.text.tokenizer, architecture="causal", name="llama", quantized=kind
    )
    found = find_projections(small.model, small.sites)
    assert [(p.module, p.width) for p in found] == [(p.module, p.width) for p in whole]
    contract.gradient_reaches_every_parameter(IA3(), small)


def test_experts_have_no_vector() -> None:
    _, trainable = contract.built(IA3(), get("qwen3_moe"))
    assert {name.rpartition(".")[2] for name in trainable().patches} == {"k_proj", "v_proj"}


@pytest.mark.parametrize("family", [*UNREACHED, *RECURRENT], ids=lambda family: family.name)
def test_what_cannot_take_it_says_so_and_what_works(family: Family) -> None:
    line = r"keys and values are not found: .* `method=lora` works"
    with pytest.raises(UserError, match=line) as caught:
        contract.built(IA3(), backbone(family))
    assert "\n" not in str(caught.value)


class Two(nn.Module):
    """Keys that are the sum of two layers', as some models compress and expand them."""

    def __init__(self, one: nn.Linear, other: nn.Linear) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.one(x), self.other(x))


def test_keys_out_of_several_layers_are_refused() -> None:
    base = backbone(CAUSAL[0])
    attention = base.model.model.layers[1].self_attn
    attention.k_proj = Two(attention.k_proj, nn.Linear(32, 16))
    with pytest.raises(UserError, match=r"not found: 'model.layers.1.self_attn' has 2 for one"):
        find_projections(base.model, base.sites)
