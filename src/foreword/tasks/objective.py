"""What training minimizes and is measured by: rows as examples, their losses, their dev score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from foreword.backbone.example import Example
from foreword.data.row import Row


@dataclass(frozen=True)
class Encoded:
    """A row as an example, its gold answer, and whether it was truncated to fit."""

    example: Example
    gold: int  # label index of a classification; number of target tokens of a generation
    truncated: bool
    number: float = 0.0  # the gold number of a score
    task: int = 0  # which of several tasks the row is of
    golds: tuple[int, ...] = ()  # the labels of a row that may have several
    windows: int = 1  # how many windows the row was split into; this is one of them


class Objective(Protocol):
    """What a training loop minimizes, and the dev score by which it keeps the best parameters."""

    @property
    def metric(self) -> str:
        """The name of the dev score; higher is better."""

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the example on whose targets the loss is taken."""

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the example on which the dev score is taken."""

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The tokens whose logits ``losses`` and ``dev_counts`` take, None for all."""

    @property
    def sums_targets(self) -> bool:
        """Whether a row's loss is a sum over its targets, and some may be taken at a time."""

    def units(self, item: Encoded) -> int:
        """Return how many a row counts as in the mean loss: 1, or its tokens or words."""

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the loss of each row, summed over its targets: (rows,)."""

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over rows, from which ``dev_score`` computes the dev score.

        Their number is fixed: summed scores and weights, say, or the cells of a confusion matrix.
        """

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the dev score from the summed ``dev_counts`` of all rows of a task."""

    def overall(self, scores: Sequence[float]) -> float:
        """Return the one score by which the best parameters are kept, from the tasks' scores."""


class Parted:
    """Rows whose logits may come some targets at a time, in the order of the targets."""

    def __init__(self, items: Sequence[Encoded]) -> None:
        self.items = items
        self._taken: dict[int, int] = {}

    def of(self, rows: Sequence[int], logits: Tensor) -> list[Encoded]:
        """Return rows, by number; of a single one with more targets than logits the next part."""
        found = [self.items[row] for row in rows]
        if len(rows) > 1 or len(logits) == len(found[0].example.targets):
            return found
        (row,), (item,) = rows, found
        start = self._taken.get(row, 0)
        self._taken[row] = start + len(logits)
        own = slice(start, start + len(logits))
        targets, answers = item.example.targets[own], item.example.answers[own]
        part = replace(item.example, targets=targets, answers=answers)
        return [replace(item, example=part, gold=len(targets))]


def mean(sums: Sequence[float], task: int = 0) -> float:
    """Return the mean from a sum of scores and their total weight, the usual dev score."""
    score, weight = sums
    return score / weight


def sum_by_row(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum values of targets by row, ``sizes`` of them for each: (targets,) -> (rows,)."""
    owners = torch.repeat_interleave(torch.tensor(sizes, device=values.device))
    return values.new_zeros(len(sizes)).index_add(0, owners, values)
