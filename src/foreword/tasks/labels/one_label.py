"""One label a row: its loss, its dev score, its answer and the weights of its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.errors import UserError, nearest
from foreword.metrics import classification as scored
from foreword.metrics.certainty import certainty
from foreword.metrics.resample import Floats
from foreword.tasks.gold import check_label
from foreword.tasks.labels.labelling import Labelling
from foreword.tasks.objective import Encoded, mean

Level = Callable[[Floats, Floats, Floats], float]
"""A score in percent points of how many rows of each label are right, have it and are given it."""


def _accuracy(hits: Floats, support: Floats, claimed: Floats) -> float:
    return 100 * float(hits.sum() / support.sum())


def _macro_f1(hits: Floats, support: Floats, claimed: Floats) -> float:
    return 100 * float(scored.macro_f1(hits, support, claimed))


def _mcc(hits: Floats, support: Floats, claimed: Floats) -> float:
    return 100 * float(scored.mcc(hits, support, claimed))


LEVELS: Mapping[str, Level] = {"accuracy": _accuracy, "macro_f1": _macro_f1, "mcc": _mcc}


def every_row(row: Row) -> None:
    """Take a row as it is."""


def nothing_more(gold: Sequence[str], predicted: Sequence[str], seed: int) -> dict[str, Any]:
    """Add no scores to the usual ones."""
    return {"intervals": {}}


@dataclass(frozen=True)
class OneLabel(Labelling):
    """One label a row.

    ``level`` makes the dev score, named ``metric``, of each label's counts, None for accuracy;
    ``usable`` raises UserError for rows that are not, by the fields that it ``needs``; ``more``
    gives scores beside the usual ones. The loss of a row is multiplied by its label's weight, where
    there are ``weights``.
    """

    names: tuple[str, ...]
    field: str
    metric: str = "accuracy"
    level: Level | None = None
    smoothing: float = 0.0
    vocabulary: bool = False
    weights: Mapping[str, float] | None = None
    usable: Callable[[Row], None] = every_row
    needs: tuple[str, ...] = ()
    more: Callable[[Sequence[str], Sequence[str], int], dict[str, Any]] = nothing_more
    asks: str = "Classify the text as"
    answer = "label"

    @property
    def gold_alone(self) -> bool:
        """Whether nothing is spread over other labels."""
        return not self.smoothing

    def _label(self, row: Row) -> str:
        return str(row.fields[self.field])

    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError for a row that is not usable, or has an unknown label."""
        self.usable(row)
        if not answers:
            return
        require(
            [row],
            [self.field],
            mend=f"rename its column, or name it with `columns={self.field}=COLUMN`",
        )
        check_label(row, self._label(row), self.names)

    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the number of the row's label."""
        return (self.names.index(self._label(row)),)

    def class_of(self, row: Row) -> str | None:
        """Return the row's label."""
        return self._label(row)

    def importance(self, item: Encoded) -> float:
        """Return the weight of the row's label."""
        return 1 if self.weights is None else self.weights[self.names[item.gold]]

    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the cross entropy to each row's label, a share of it spread over all labels.

        With weights and smoothing each label's part has its own weight, as in torch.
        """
        gold = [item.gold for item in items]
        share = self.smoothing
        if self.weights is None:
            return -(1 - share) * scores[range(len(items)), gold] - share * scores.mean(1)
        weighed = scores * scores.new_tensor([self.weights[name] for name in self.names])
        return -(1 - share) * weighed[range(len(items)), gold] - share * weighed.mean(1)

    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return 100 for each row that is right, and the rows; or each label's counts."""
        best = scores.argmax(1).tolist()
        if self.level is None:
            right = sum(b == item.gold for b, item in zip(best, items, strict=True))
            return 100.0 * right, len(items)
        counts = np.zeros((3, len(self.names)))  # hits, support, claimed
        for guess, item in zip(best, items, strict=True):
            counts[0, guess] += guess == item.gold
            counts[1, item.gold] += 1
            counts[2, guess] += 1
        return tuple(counts.ravel().tolist())

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the level that was asked for."""
        if self.level is None:
            return mean(sums)
        return self.level(*np.array(sums).reshape(3, -1))

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return the likeliest label, and the probabilities of all."""
        chances = scores[0].exp().tolist()
        best = self.names[chances.index(max(chances))]
        return {"label": best, "probabilities": dict(zip(self.names, chances, strict=True))}

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return accuracy, F1, the confusion matrix, and what probabilities tell beyond them."""
        gold, guess = [self._label(row) for row in rows], [str(p["label"]) for p in predictions]
        parts = [scored.classification(gold, guess, self.names, seed=seed)]
        parts.append(self.more(gold, guess, seed))
        if all("probabilities" in each for each in predictions):
            chances = [each["probabilities"] for each in predictions]
            parts.append(certainty(gold, chances, self.names, seed=seed))
        intervals = {name: each for part in parts for name, each in part["intervals"].items()}
        return {n: v for part in parts for n, v in part.items()} | {"intervals": intervals}


def balance(labels: Sequence[str]) -> dict[str, float]:
    """Return weights that let every label count alike: n / (k * n_c), of n rows and k labels.

    King and Zeng 2001, "Logistic regression in rare events data"; scikit-learn's "balanced".

    >>> balance(["spam", "ham", "ham", "ham"])
    {'ham': 0.6666666666666666, 'spam': 2.0}
    """
    counts = Counter(labels)
    return {name: len(labels) / (len(counts) * counts[name]) for name in sorted(counts)}


def check_weights(weights: Mapping[str, float], names: Sequence[str]) -> None:
    """Raise UserError for weights that are not one above 0 for each label."""
    for name in weights:
        if name not in names:
            raise UserError(f"class_weights: unknown label '{name}'; {nearest(name, names)}")
    for name in names:
        if not 0 < weights.get(name, 0.0) < float("inf"):
            raise UserError(
                f"class_weights: label '{name}' needs a weight above 0, and 'balanced' a training "
                "row of it; add one or leave class_weights out"
            )
