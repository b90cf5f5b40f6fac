"""The floor of a step: the matrix products that its real tokens need, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.injection import KV, Injection


@dataclass(frozen=True, eq=False)
class Product:
    """One linear layer, and whether a gradient must flow back through it."""

    weight: Tensor  # (out, in)
    backward: bool


def products(backbone: Backbone) -> list[Product]:
    """List the linear layers that a row's tokens pass, in order, without the head.

    Found by running one row under a prefix that asks for gradients: below the first prefix
    nothing does, and there no gradient need flow. The same holds under a soft prompt, for the
    tokens that are not its own.
    """
    kv = {
        site.name: KV(
            torch.zeros(site.heads, 1, site.key_width, requires_grad=True),
            torch.zeros(site.heads, 1, site.value_width, requires_grad=True),
        )
        for site in backbone.need_sites()
    }
    once = [Example((3, 1), 2, ((),), ((0, -1),))], Injection(kv=kv, positions=1)
    backbone.states(*once)  # which may try out first what the model can do
    found: list[Product] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        found.append(Product(module.weight, inputs[0].requires_grad))

    hooks = [
        module.register_forward_hook(record)
        for module in backbone.model.base_model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        backbone.states(*once)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError(f"{backbone.name}: has no linear layers of torch's to time a floor by")
    return found


class Floor:
    """The products of one batch: N real tokens through every layer, T targets through the head."""

    def __init__(
        self, backbone: Backbone, found: Sequence[Product], examples: Sequence[Example]
    ) -> None:
        self.products = found
        head = cast(nn.Linear, backbone.model.get_output_embeddings())  # type: ignore[no-untyped-call]
        self.head: Tensor = head.weight
        self.tokens = sum(example.length for example in examples)
        self.targets = sum(len(example.targets) for example in examples)
        widths = {width for product in found for width in product.weight.shape}
        self.rows = {width: self._random(self.tokens, width) for width in widths}
        self.read = {width: self._random(self.targets, width) for width in self.head.shape}

    def _random(self, rows: int, width: int) -> Tensor:
        return torch.randn(rows, width, dtype=self.head.dtype, device=self.head.device)

    @torch.no_grad()
    def run(self) -> None:
        """Run the products forward, then those of the gradient backward."""
        out, width = self.head.shape
        for product in self.products:
            F.linear(self.rows[product.weight.shape[1]], product.weight)
        F.linear(self.read[width], self.head)
        torch.mm(self.read[out], self.head)
        for product in reversed(self.products):
            if product.backward:
                torch.mm(self.rows[product.weight.shape[0]], product.weight)
