"""Gradients through every family: complete, right, recomputed exactly, and never a weight's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import (
    FAMILIES,
    LEAD,
    REACHED_NAMES,
    RECURRENT_NAMES,
    ROWS,
    asking,
    close,
    digest,
    get,
    loss_and_gradients,
    random_kv,
    random_soft,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from families import backbone, by_mechanism
from foreword.errors import UserError

DIFFERENTIABLE = ["gpt2", "gpt_neox", "bert", "distilbert", "bart", "marian"]


@pytest.mark.parametrize("name", REACHED_NAMES)
def test_gradient_reaches_every_key_and_value_and_no_weight(name: str) -> None:
    base = get(name)
    before = digest(base.model)
    injection = random_kv(base, 3)
    _, gradients = loss_and_gradients(base, injection, [asking(name, row) for row in ROWS])
    assert len(gradients) == 2 * len(base.sites)
    for tensor, gradient in gradients.items():
        assert gradient.isfinite().all(), tensor
        assert (gradient.abs().amax(2) > 0).all(), f"{tensor}: not every head and position"
    assert digest(base.model) == before
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())
    assert not any(module.training for module in base.model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_reaches_every_virtual_token_and_no_weight(name: str) -> None:
    base = get(name)
    before = digest(base.model)
    rows = [(*row[:2], base.vocabulary + 2, *row[2:]) for row in ROWS]
    injection = random_soft(base, 3, leading=2)
    _, gradients = loss_and_gradients(base, injection, [asking(name, row) for row in rows])
    assert (gradients["embeds"].abs().amax(1) > 0).all()
    assert digest(base.model) == before
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_equal_finite_differences(name: str) -> None:
    base = get(name, torch.float64)
    injection = replace(random_soft(base, 1, leading=1), kv=random_kv(base, 3).kv)
    asked = [asking(name, row) for row in ROWS[:2]]
    _, gradients = loss_and_gradients(base, injection, asked)
    roles = {site.role: site.name for site in base.sites.values()}
    step = 1e-5
    tensors = dict(injection.tensors())
    ends = [f"kv.{site}.{part}" for site in roles.values() for part in ("keys", "values")]
    for tensor in ("embeds", *ends):
        steepest = int(gradients[tensor].abs().argmax())
        entry = tensors[tensor].view(-1)[steepest : steepest + 1]
        losses = []
        for shift in (step, -2 * step):
            entry += shift
            with torch.no_grad():
                logits = base.logits(base.states(asked, injection))
                losses.append(F.cross_entropy(logits, torch.arange(len(logits)) + 3))
        entry += step
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope.abs() > 1e-7
        torch.testing.assert_close(
            gradients[tensor].reshape(-1)[steepest], slope, rtol=1e-4, atol=1e-10
        )


# Their layers are not of the kind that transformers can recompute.
NOT_RECOMPUTED = ["albert", "mpnet", *RECURRENT_NAMES]


@pytest.mark.parametrize("name", NOT_RECOMPUTED)
def test_families_that_cannot_checkpoint_say_so(name: str) -> None:
    base = get(name)
    assert not any(isinstance(m, GradientCheckpointingLayer) for m in base.model.modules())
    with pytest.raises(UserError, match=type(base.model).__name__):
        base.checkpointing(True)


@pytest.mark.parametrize(
    "name", by_mechanism(name for name in FAMILIES if name not in NOT_RECOMPUTED)
)
def test_checkpointing_changes_nothing_but_the_memory(name: str) -> None:
    settings = get(name).model.config.to_dict().items()
    high = {k: 0.5 for k, v in settings if "drop" in k and "layer" not in k and type(v) is float}
    base = backbone(FAMILIES[name], **high)  # a dropout that comes on cannot go unnoticed
    injection = random_soft(base, 2, leading=2)
    if base.sites:
        injection = replace(random_kv(base, 3), embeds=injection.embeds, leading=2)
    asked = [asking(name, row) for row in ROWS]
    before, expected = loss_and_gradients(base, injection, asked)

    layer = next(m for m in base.model.modules() if isinstance(m, GradientCheckpointingLayer))
    inner = next(m for m in layer.modules() if next(m.parameters(recurse=False), None) is not None)
    calls: list[None] = []
    inner.register_forward_hook(lambda *_: calls.append(None))
    for on in (False, True, True, False):
        base.checkpointing(on)
        calls.clear()
        loss, gradients = loss_and_gradients(base, injection, asked)
        assert len(calls) == (2 if on else 1), "a layer is run twice where it is recomputed"
        close(loss, before, 1e-6)
        for tensor, gradient in expected.items():
            close(gradients[tensor], gradient, 1e-6)
    assert not base.embed(LEAD).requires_grad
    assert not any(module.training for module in base.model.modules())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_oss", "bert", "t5", "bart"])
def test_a_float32_injection_trains_on_a_bfloat16_model(name: str) -> None:
    base, like = get(name, torch.bfloat16), get(name)
    injection = replace(random_kv(like, 3), embeds=random_soft(like, 2).embeds, leading=2)
    asked = [asking(name, row) for row in ROWS]
    loss, gradients = loss_and_gradients(base, injection, asked)
    halved, _ = loss_and_gradients(base, injection.map(lambda tensor: tensor.bfloat16()), asked)
    assert torch.equal(loss, halved)
    for tensor, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all(), tensor
        assert gradient.any(), tensor
