"""The linear layers that keys and values come out of: found by one run with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedModel

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.inside.attention_sites import Site
from foreword.backbone.inside.hooks import own_passes
from foreword.errors import UserError


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer whose output holds keys or values of an attention module.

    ``channels`` says which of its ``width`` outputs do. They are all of them in a layer of its
    own, and some in one that projects queries, keys and values at once.
    """

    module: str
    width: int
    channels: Tensor  # (n,) indices, ascending


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, in either of transformers' layouts."""
    return isinstance(module, nn.Linear | Conv1D)


def linear_sizes(module: nn.Module) -> tuple[int, int]:
    """Return the sizes of a linear layer's input and output."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def find_projections(model: PreTrainedModel, sites: Mapping[str, Site]) -> list[Projection]:
    """List the layers that project keys and values, in the order in which they run.

    The model is run once on four tokens. A linear layer projects the keys where their gradient
    by its output is not zero, and so for the values; where it is zero tells which channels of a
    fused layer are the queries'.

    Raises UserError for a model without attention sites, and for one whose keys or values come
    out of no linear layer, or of several.
    """
    if not sites or any(site.recurrent for site in sites.values()):
        raise _not_found(model, "it has no attention that goes through transformers' interface")
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[str, Tensor] = {}  # of the linear layers since the attention before
    found: dict[str, Tensor] = {}  # (width,): whether a channel is of keys or values
    done: set[str] = set()

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        outputs[names[module]] = output.detach().requires_grad_()
        return outputs[names[module]].clone()

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> None:
        for tensor in (key, value) if names[module] not in done else ():
            reached = _find_sources(tensor, outputs)
            if len(reached) != 1:
                raise _not_found(model, f"'{names[module]}' has {len(reached)} for one of the two")
            for name, channels in reached.items():
                found[name] = found.get(name, channels) | channels
        done.add(names[module])
        outputs.clear()

    inputs: dict[str, Any] = {"input_ids": torch.arange(3, 7, device=model.device)[None]}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :2]
    hooks = [m.register_forward_hook(own_passes(cut)) for m in model.modules() if is_linear(m)]
    try:
        with torch.enable_grad():
            model(**inputs, foreword=PassContext(record=record))
    finally:
        for hook in hooks:
            hook.remove()
    return [Projection(name, len(used), used.nonzero()[:, 0]) for name, used in found.items()]


def _find_sources(tensor: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs that a tensor was computed from, as the channels that it depends on."""
    if not tensor.requires_grad:
        return {}
    noise = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)
    given = list(outputs.values())
    gradients = torch.autograd.grad(tensor, given, noise, retain_graph=True, allow_unused=True)
    pairs = zip(outputs, gradients, strict=True)
    used = {name: (g != 0).flatten(0, -2).any(0) for name, g in pairs if g is not None}
    return {name: channels for name, channels in used.items() if bool(channels.any())}


def _not_found(model: PreTrainedModel, why: str) -> UserError:
    return UserError(
        f"the linear layers that give {type(model).__name__} its keys and values are not found: "
        f"{why}; `method=lora` works on it"
    )
