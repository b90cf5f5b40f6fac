"""A model that a user hands over stays as it was, while the backbone runs a view of it."""

import pytest
import torch
from tiny_runs import FAMILIES
from transformers import PreTrainedModel

from families import family_model, tokenizer
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example


def logits(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.tensor([[3, 4, 5, 6]])
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, **extra).logits
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5", "bloom"])
def test_a_users_model_stays_as_it_was(name: str) -> None:
    model = family_model(FAMILIES[name])
    before = logits(model.train(False))
    implementation = model.config._attn_implementation
    weights = {n: (p, p.requires_grad) for n, p in model.named_parameters()}
    weights[next(iter(weights))][0].requires_grad_(False)
    asked = {n: p.requires_grad for n, p in model.named_parameters()}
    model.train()
    base = Backbone(model, tokenizer(), architecture=FAMILIES[name].architecture, name=name)  # type: ignore[arg-type]
    base.states([Example((3, 4, 5), 3, ((),) if name != "t5" else ((4,),), ((0, -1),))])

    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == implementation
    assert {n: p.requires_grad for n, p in model.named_parameters()} == asked
    assert all(weights[n][0] is p for n, p in model.named_parameters())
    torch.testing.assert_close(logits(model.train(False)), before, rtol=0, atol=0)

    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    held = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in base.model.parameters()} == held  # no weight is copied


def test_a_users_model_can_still_be_trained() -> None:
    model = family_model(FAMILIES["llama"])
    base = Backbone(model, tokenizer(), architecture="causal", name="llama")
    loss = model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in base.model.parameters())
