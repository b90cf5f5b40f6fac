"""Gradient checkpointing: layers that recompute their activations in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.errors import UserError


def layers_that_recompute(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """Return the layers of a model that can recompute their activations."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


def recompute_layers(model: nn.Module, on: bool) -> None:
    """Let every layer of ``model`` recompute its activations, or keep them again.

    transformers' own switch also marks input embeddings as trained, for good, and asks for
    training mode, in which some layers drop out; so each layer's own flags are set instead.
    Raises UserError for a model that is not made of such layers.
    """
    layers = layers_that_recompute(model)
    if on and not layers:
        raise UserError(
            f"{type(model).__name__} cannot recompute its layers; leave out `checkpointing`"
        )
    for layer in layers:
        layer.gradient_checkpointing = layer.training = on
        setattr(layer, "_gradient_checkpointing_func", _recompute)  # noqa: B010


def _recompute(function: Any, *inputs: Any) -> Any:
    """Run a layer under checkpointing, in evaluation mode while it runs.

    ``function`` is a partial of the layer's forward over the layer itself, which may be a copy of
    the one that was set to recompute.
    """
    layer = function.args[0]

    def quiet(*inputs: Any) -> Any:
        layer.training = False
        try:
            return function(*inputs)
        finally:
            layer.training = True

    return checkpoint(quiet, *inputs, use_reentrant=False)
