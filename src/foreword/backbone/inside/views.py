"""Shells: the same modules under another top, so that part of a model's own code runs alone."""

from __future__ import annotations

import copy
from functools import wraps
from types import new_class
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import ModelOutput

from foreword.backbone.attention.interface import PassContext


class StandIn(nn.Module):
    """Stands for the module ``within`` it, and shows its attributes to who looks."""

    def __init__(self, within: nn.Module) -> None:
        super().__init__()
        self.within = within

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.within, name)


class _Given(nn.Module):
    """Stands for a module and for each of its parts, and answers with what is already known."""

    def __init__(self, instead_of: nn.Module, output: ModelOutput) -> None:
        super().__init__()
        self.output = output
        for name, _ in instead_of.named_children():
            self._modules[name] = self

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        return self.output


def head(
    model: PreTrainedModel,
    states: Tensor,
    output: type[ModelOutput],
    narrow: nn.Linear | None = None,
) -> Tensor:
    """Run only what ``model`` does after its last layer: (N, width) -> logits (N, vocabulary).

    The model's own code runs, with its scaling, soft caps and biases, over a stand-in for the
    base model (for the decoder, where the two stacks have no common base). ``output`` is the
    class in which that base model answers. ``narrow`` takes the place of the output embeddings.
    """
    hidden = states[None]  # (1, N, width)
    base = model.base_model
    if base is not model:
        name = model.base_model_prefix
    elif model.config.is_encoder_decoder:
        base = cast(nn.Module, model.get_decoder())  # type: ignore[no-untyped-call]
        name = next(n for n, module in model.named_children() if module is base)
    else:
        raise NotImplementedError(f"{type(model).__name__} has no base model below its head")
    shell = copy.copy(model)
    shell._modules = dict(model._modules)
    shell._modules[name] = _Given(base, output(last_hidden_state=hidden))
    if narrow is not None:
        shell._modules[held_by(model, output_embeddings(model))] = narrow
    if model.config.is_encoder_decoder:
        encoded = BaseModelOutput(last_hidden_state=hidden)
        answer = shell(encoder_outputs=encoded, decoder_inputs_embeds=hidden)
    else:
        answer = shell(inputs_embeds=hidden)
    logits: Tensor = answer.logits[0]
    return logits


def output_embeddings(model: PreTrainedModel) -> nn.Module | None:
    """Return the module that makes scores of states, None where the model has none."""
    found: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return found


def held_by(model: nn.Module, module: nn.Module | None) -> str:
    """Return the name under which ``model`` itself holds a module; empty where it does not."""
    return next((name for name, child in model.named_children() if child is module), "")


def generating_view(
    model: PreTrainedModel, carried: PassContext | None, start: Tensor
) -> PreTrainedModel:
    """Return a shell of ``model`` for ``generate``: its forward carries, its positions start later.

    ``start`` (B, 1) is the position of each row's first token.
    ``generate`` refuses unknown keywords, and models override parts of it; a subclass that
    shares every module is the one place where both can be met.
    """
    kind = type(model)

    @wraps(kind.forward)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if carried is not None:
            kwargs["foreword"] = carried
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"] + start
        return kind.forward(self, *args, **kwargs)

    shell = copy.copy(model)
    speaker = new_class(
        f"Speaking{kind.__name__}", (kind,), {}, lambda body: body.update(forward=forward)
    )
    made: PreTrainedModel = object.__new__(speaker)
    made.__dict__ = shell.__dict__
    return made
