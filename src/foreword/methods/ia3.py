"""IA3: trained vectors that rescale a frozen model's keys, values and feed-forward activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from foreword.backbone.inside.projections import find_projections, is_linear, linear_sizes
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.injection import Injection, Patch
from foreword.methods.base import Trainable
from foreword.tasks.base import Bound


@dataclass(frozen=True)
class IA3:
    """Infused adapter by inhibiting and amplifying inner activations (Liu et al. 2022).

    In arXiv:2205.05638, three vectors a layer multiply, number by number, the keys (l_k), the
    values (l_v) and what the feed-forward part's last linear layer reads (l_ff). They start at
    one, so that training begins at the model itself, and are trained as their difference from
    one. Keys and values are rescaled where a linear layer gives them, before any rotation or
    norm; in a layer that gives the queries too, these stay as they are. Experts, whose weights
    are no linear layers, have no l_ff.
    """

    rate: float = setting(1e-2, help="learning rate")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Start at one; raises UserError where keys and values have no linear layers."""
        backbone = task.backbone
        found = find_projections(backbone.model, backbone.sites)
        vectors = [Rescaled(p.module, "output", p.width, p.channels) for p in found]
        for part in backbone.layer_parts:
            module = backbone.model.get_submodule(part.module)
            if part.part == "feed-forward" and is_linear(module):
                width = linear_sizes(module)[0]
                vectors.append(Rescaled(part.module, "input", width, torch.arange(width)))
        return Vectors(vectors, backbone.device)


@dataclass(frozen=True, eq=False)
class Rescaled:
    """A module whose input or output, (..., ``width``), is rescaled in some channels."""

    module: str
    adds_to: Literal["input", "output"]
    width: int
    channels: Tensor  # (n,) indices


class Vectors(Trainable):
    """One vector a module, less one: (n,), the number of channels that it rescales."""

    def __init__(self, rescaled: Sequence[Rescaled], device: torch.device) -> None:
        super().__init__()
        self.rescaled = rescaled
        self.vectors = nn.ParameterList(
            torch.zeros(len(each.channels), device=device) for each in rescaled
        )

    def forward(self) -> Injection:
        """Return patches that add ``(l - 1) * x`` to x."""
        patches = {}
        for each, vector in zip(self.rescaled, self.vectors, strict=True):
            rest = vector.new_zeros(each.width)
            whole = rest.index_copy(0, each.channels.to(rest.device), vector)
            patches[each.module] = (Patch(whole, adds_to=each.adds_to),)
        return Injection(patches=patches)
