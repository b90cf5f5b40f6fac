"""Full fine-tuning: every weight is trained, the baseline that other methods are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Trainable, as_float32
from foreword.tasks.base import Bound
from foreword.tasks.templates.layout import room_for


@dataclass(frozen=True)
class Full:
    """Full fine-tuning: a copy of all weights in float32, trained; the model itself stays.

    The file is as large as the model. Beside another method (``prefix+full``) both are trained.
    """

    rate: float = setting(3e-5, help="learning rate")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Weights:
        """Copy the weights; raises UserError for a model whose weights are quantized."""
        backbone = task.backbone
        if backbone.quantized is not None:
            raise UserError(
                f"`method=full`: the weights of {backbone.name} are quantized to "
                f"{backbone.quantized} and cannot be trained; leave out `quantize`"
            )
        return Weights(_reached(task, rows[0], Weights(dict(backbone.model.named_parameters()))))


def _reached(task: Bound, row: Row, whole: Weights) -> dict[str, Tensor]:
    """Return the weights that a row's loss depends on; some models hold position tables fixed."""
    injection: Injection = whole()
    item = task.train_example(row, room_for(task.backbone, injection))
    view = task.backbone.with_changes(injection)
    with torch.enable_grad():
        states = view.states([item.example], injection)
        loss = task.losses(view.logits(states, task.tokens), [item]).sum()
        found = torch.autograd.grad(loss, list(whole.weights), allow_unused=True)
    named = injection.weights.items()
    return {n: w for (n, w), gradient in zip(named, found, strict=True) if gradient is not None}


class Weights(Trainable):
    """All parameters of a model under their own names."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = list(weights)
        self.weights = nn.ParameterList(map(as_float32, weights.values()))

    def forward(self) -> Injection:
        """Return the weights as they are."""
        return Injection(weights=dict(zip(self.names, self.weights, strict=True)))
