"""Linear layers whose frozen weights stand in bfloat16, and are multiplied as wide as before."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HalfLinear(nn.Linear):
    """The frozen linear layer ``whole`` in half its bytes.

    Its ``weight`` is made anew, in the type that it had, whenever it is asked for. Products are of
    that type too, so that weights which were bfloat16 in their file lose nothing.
    """

    def __init__(self, whole: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = whole.in_features, whole.out_features
        self.bias, self.wide = whole.bias, whole.weight.dtype
        self.stored: Tensor
        self.register_buffer("stored", whole.weight.detach().to(torch.bfloat16))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights, (outputs, inputs), in the type that is computed in."""
        return self.stored.to(self.wide)

    def forward(self, states: Tensor) -> Tensor:
        """Return the layer's outputs, of the states' shape with ``out_features`` at the end."""
        made: Tensor = _Product.apply(states, self.stored, self.bias)  # type: ignore[no-untyped-call]
        return made


class _Product(torch.autograd.Function):
    """``states @ stored.T + bias``, which keeps no wide weights for the gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, stored: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(stored)
        return F.linear(states, stored.to(states.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (stored,), (grad,) = ctx.saved_tensors, grads
        return grad @ stored.to(grad.dtype), None, None
