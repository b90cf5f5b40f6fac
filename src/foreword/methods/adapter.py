"""Bottleneck adapters: small trained networks inside a frozen model's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from foreword.backbone.inside.layer_parts import LayerPart, Part
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.injection import Patch
from foreword.methods.base import Trainable
from foreword.methods.parts.patches import Patches
from foreword.tasks.base import Bound

Placement = Literal["houlsby", "pfeiffer", "parallel"]
Nonlinearity = Literal["relu", "gelu", "silu", "tanh"]
PARTS: dict[Placement, tuple[Part, ...]] = {
    "houlsby": ("attention", "feed-forward"),
    "pfeiffer": ("feed-forward",),
    "parallel": ("feed-forward",),
}


@dataclass(frozen=True)
class Adapter:
    """An adapter adds ``s * (W_up f(W_down x + b_down) + b_up)`` to the output h of a part.

    ``placement`` says where: "houlsby" behind the attention (cross attention too) and the
    feed-forward part of each layer, with x = h (Houlsby et al. 2019, arXiv:1902.00751);
    "pfeiffer" behind the feed-forward part alone (Pfeiffer et al. 2021, arXiv:2005.00247);
    "parallel" beside the feed-forward part, x being what that reads (He et al. 2022,
    arXiv:2110.04366). All stand before the layer's residual connection. W_down is
    (``bottleneck``, width); f is the ``activation``. s is ``scale``, by default 4 for "parallel"
    and else 1. W_down starts as a linear layer does, all others at zero, so that training begins
    at the model itself. ``gate`` weighs each adapter token by token (parts/patches.py).
    """

    placement: Placement = setting(
        "pfeiffer", help="where adapters stand: houlsby, pfeiffer or parallel"
    )
    bottleneck: int = setting(32, help="inner width of an adapter")
    activation: Nonlinearity = setting(
        "relu", help="activation inside an adapter: relu, gelu, silu or tanh"
    )
    scale: float | None = setting(
        None, help="factor of an adapter's output; else 4 for parallel, 1 for others"
    )
    gate: bool = setting(False, help="weigh each adapter by a trained gate")
    rate: float = setting(1e-3, help="learning rate")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Start the adapters; raises UserError for a width or a place that cannot be."""
        if self.placement not in PARTS:
            raise UserError(f"`placement={self.placement}`: {nearest(self.placement, PARTS)}")
        if self.activation not in get_args(Nonlinearity):
            known = nearest(self.activation, get_args(Nonlinearity))
            raise UserError(f"`activation={self.activation}`: {known}")
        if self.scale is not None and not 0 < abs(self.scale) < 1e6:
            raise UserError(f"`scale={self.scale:g}`: give a number other than 0, below 1e6")
        places = [p for p in task.backbone.layer_parts if p.part in PARTS[self.placement]]
        most = min(place.width for place in places)
        if not 1 <= self.bottleneck <= most:
            raise UserError(
                f"`bottleneck={self.bottleneck}`: give from 1 to {most}, the width of the model"
            )
        noise = torch.Generator().manual_seed(seed)
        start = {p.module: self._patch(p, noise, task.backbone.device) for p in places}
        scale = self.scale if self.scale is not None else 4.0 if self._parallel else 1.0
        return Patches(start, scale, self.gate)

    @property
    def _parallel(self) -> bool:
        return self.placement == "parallel"

    def _patch(self, place: LayerPart, noise: torch.Generator, device: torch.device) -> Patch:
        inputs = place.inputs if self._parallel else place.width
        drawn = torch.rand(self.bottleneck, inputs, generator=noise) * 2 - 1
        return Patch(
            down=(drawn * inputs**-0.5).to(device),  # Kaiming's, as torch starts nn.Linear
            up=torch.zeros(place.width, self.bottleneck, device=device),
            down_bias=torch.zeros(self.bottleneck, device=device),
            up_bias=torch.zeros(place.width, device=device),
            reads=place.entry if self._parallel else None,
            activation=self.activation,
        )
