"""Head: a linear classifier on what the model makes of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from foreword import injection
from foreword.data.read import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.method import Trainable
from foreword.tasks.task import Bound


@dataclass(frozen=True)
class Head:
    """A linear layer from the last hidden state at the answer's place to scores of the classes.

    Alone it is the linear probe of frozen features; beside another method (``deep+head``, as in
    P-tuning v2, Liu et al. 2022, arXiv:2110.07602) it takes the verbalizer's place.
    """

    rate: float = 1e-3
    shots: int = 4

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Linear:
        """Start with small random weights; raises UserError for a task without classes."""
        if not task.classes:
            raise UserError(
                "--method head: the task has no classes to score; leave it out, or use --task "
                "classify"
            )
        noise = torch.Generator().manual_seed(seed)
        width = task.backbone.state_width
        drawn = torch.randn(task.classes, width, generator=noise) * 0.02
        return Linear(drawn.to(task.backbone.device))


class Linear(Trainable):
    """Weight (C, width) and bias (C,)."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)))

    def forward(self) -> Injection:
        """Return the layer as it is."""
        return Injection(head=injection.Head(self.weight, self.bias))
