"""Trained patches: what adapters and low-rank updates have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from foreword.injection import Injection, Patch
from foreword.methods.base import Trainable, as_float32


class Patches(Trainable):
    """The tensors of one patch a module, as ``patches.0.down`` ...; ``up`` is trained unscaled.

    The injection's ``up`` is ``scale`` times the trained one, so that a prompt file needs no
    scale. With ``gate`` each patch has its own gate g(x) = sigmoid(w x + b) (UniPELT, Mao et al.
    2022, arXiv:2110.07577), started at 1/2. It is taken at every token; the paper's is the mean
    over a row's tokens.
    """

    def __init__(self, start: Mapping[str, Patch], scale: float, gate: bool) -> None:
        super().__init__()
        self.start = dict(start)
        self.scale = scale
        self.patches = nn.ModuleList()
        for patch in start.values():
            parts = {name: as_float32(tensor) for name, tensor in patch.parts().items()}
            if gate:
                parts["gate"] = parts["up"].new_zeros(patch.inputs + 1)
            self.patches.append(
                nn.ParameterDict({name: nn.Parameter(tensor) for name, tensor in parts.items()})
            )

    def forward(self) -> Injection:
        """Return the patches as they are, scaled."""
        made = {}
        for (module, patch), own in zip(self.start.items(), self.patches, strict=True):
            assert isinstance(own, nn.ParameterDict)
            parts: dict[str, Any] = dict(own.items())
            parts["up"] = torch.mul(parts["up"], self.scale)
            if "up_bias" in parts:
                parts["up_bias"] = torch.mul(parts["up_bias"], self.scale)
            made[module] = (replace(patch, **parts),)
        return Injection(patches=made)
