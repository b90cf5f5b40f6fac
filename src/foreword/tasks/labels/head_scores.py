"""Labels scored by a trained head in place of label words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.example import Example
from foreword.tasks.labels.similar import WHOLE_ROW
from foreword.tasks.labels.verbalizer import Plan


@dataclass(frozen=True)
class Headed:
    """One target a row, whose last hidden state a linear head maps to scores of the labels.

    The target is the last token before the answer, on masked models (``mask``) one mask token in
    its place, and on encoders (``pooled``) the whole row. Scores of the head are (rows, labels),
    those of no vocabulary. Its rows stand in the order of the labels' names, since a file does
    not keep the order of labels.
    """

    names: tuple[str, ...]
    mask: int | None
    pooled: bool = False
    tokens = None

    @cached_property
    def everything(self) -> Plan:
        """The plan with the single target."""
        if self.pooled:
            return WHOLE_ROW
        if self.mask is None:
            return Plan(((),), ((0, -1),), ())
        return Plan(((self.mask,),), ((0, 0),), ())

    @cached_property
    def by_label(self) -> tuple[Plan, ...]:
        """The same plan for all labels."""
        return (self.everything,) * len(self.names)

    @cached_property
    def _place(self) -> list[int]:
        """Where the head has each label."""
        ordered = sorted(self.names)
        return [ordered.index(name) for name in self.names]

    def scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels: (rows, labels)."""
        return F.log_softmax(logits.float(), 1)[:, self._place]

    def losses(self, logits: Tensor, examples: Sequence[Example], gold: Sequence[int]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,)."""
        target = torch.tensor([self._place[label] for label in gold], device=logits.device)
        return F.cross_entropy(logits.float(), target, reduction="none")
