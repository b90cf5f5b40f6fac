"""What is taken for rounding: as much as a model makes of it, and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from families import CAUSAL, MASKED, SEQ2SEQ, Family, backbone, family_model
from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.agreement import agree, states_agree

IDS = torch.tensor([[3, 1, 2, 4]])


def read(dtype: torch.dtype, steepness: float) -> tuple[PreTrainedModel, Callable[[], Tensor]]:
    """Return a model and a pass that makes ``steepness`` times as much of how its embeddings round.

    Its states are 1 where embeddings are as they are.
    """
    model = family_model(CAUSAL[0], dtype=dtype)
    table = model.get_input_embeddings()
    still = table(IDS)[0].detach()

    def read_on() -> Tensor:
        moved = (table(IDS)[0] - still) / still.abs().clamp(min=torch.finfo(dtype).tiny)
        states: Tensor = 1 + steepness * moved
        return states

    return model, read_on


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_is_allowed_twice_what_it_makes_of_rounding(dtype: torch.dtype) -> None:
    rounding = torch.finfo(dtype).eps
    model, states = read(dtype, steepness=0.05 / rounding)  # two roundings: 0.1 to 0.15 of a state
    found = states()
    assert torch.equal(found, torch.ones_like(found))
    for far, allowed in ((0.04, True), (0.15, True), (0.4, False), (1.0, False)):
        assert states_agree(model, states, found + far) is allowed, far
        assert agree(found, found + far) is (far < 0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_model_is_allowed_more_than_half_of_a_state(dtype: torch.dtype) -> None:
    model, states = read(dtype, steepness=10 / torch.finfo(dtype).eps)
    found = states()
    assert states_agree(model, states, found + 0.4)
    assert not states_agree(model, states, found + 0.6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_state_that_is_calm_lends_nothing_to_another(dtype: torch.dtype) -> None:
    model, states = read(dtype, steepness=0.1 / torch.finfo(dtype).eps)
    calm = torch.tensor([[1.0], [0.0], [1.0], [1.0]], dtype=dtype)

    def some_calm() -> Tensor:
        return 1 + calm * (states() - 1)

    far = torch.zeros_like(states())
    far[0] = 0.3
    assert states_agree(model, some_calm, some_calm() + far)
    assert not states_agree(model, some_calm, some_calm() + far.roll(1, 0))


def test_in_float32_a_difference_is_one() -> None:
    model, states = read(torch.float32, steepness=0.1 / torch.finfo(torch.bfloat16).eps)
    assert states_agree(model, states, states() + 5e-4)
    assert not states_agree(model, states, states() + 5e-3)


def test_embeddings_are_left_as_they_were() -> None:
    model, states = read(torch.bfloat16, steepness=1.0)
    states_agree(model, states, states() + 1)
    assert torch.equal(states(), torch.ones_like(states()))
    assert not model.get_input_embeddings()._forward_hooks


def can(base: Backbone) -> tuple[bool, ...]:
    lower = base.can_skip_lower_layers(9)
    return base.can_pad, base.can_pack, base.can_prefill, lower


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layers", [2, 24])
@pytest.mark.parametrize("family", [*CAUSAL[:2], *MASKED[:2], SEQ2SEQ[1]], ids=lambda f: f.name)
def test_a_model_can_in_half_types_what_it_can_in_float32(
    family: Family, layers: int, dtype: torch.dtype
) -> None:
    config = {"num_hidden_layers": layers, "initializer_range": 0.1}
    if family in SEQ2SEQ:
        config = {"encoder_layers": layers, "decoder_layers": layers}
    assert can(backbone(family, dtype=dtype, **config)) == can(backbone(family, **config))
