"""Labelling: what one machine for labels is told of a task, and the case of one label a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.errors import UserError, nearest
from foreword.metrics import classification as scored
from foreword.metrics.certainty import certainty
from foreword.metrics.resample import Floats
from foreword.tasks.base import Encoded, Task, mean

Fit = Callable[[Any, Sequence[Row], Sequence[Mapping[str, Any]]], Task]


class Labelling(Protocol):
    """Which labels a row has, how they are learned and told, and how far they are right.

    A row has one or several *places*, each of which is given a score for every label: a
    classification has one, where the template ends; a tagging has one a word.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in the order of their scores."""

    @property
    def metric(self) -> str:
        """The name of the dev score."""

    @property
    def headline(self) -> str:
        """The score by which prompts are compared."""

    @property
    def answer(self) -> str:
        """The key of the answer in what ``told`` returns."""

    @property
    def asks(self) -> str:
        """The beginning of a sentence that describes the task, which the labels end."""

    @property
    def each(self) -> str:
        """The template of what follows a row at each of its places; empty for one bare place."""

    @property
    def vocabulary(self) -> bool:
        """Whether label words are learned against the whole vocabulary."""

    @property
    def own(self) -> bool:
        """Whether the loss is that of one gold label alone, so that only its words are read."""

    @property
    def whole(self) -> bool:
        """Whether a row that is too long is refused, and not cut."""

    @property
    def fit(self) -> Fit | None:
        """What completes the task by the answers to dev rows after a training."""

    def places(self, row: Row) -> Sequence[Mapping[str, str]]:
        """Return the fields of ``each``, place by place."""

    def shown(self, row: Row) -> Row:
        """Return the row with texts in the fields that a template may show."""

    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError, ``FILE:LINE: ...``, for a row that cannot be used."""

    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the numbers of a row's labels."""

    def spoken(self, row: Row) -> Sequence[Sequence[int]]:
        """Return the labels whose words stand at each place of a demonstration."""

    def class_of(self, row: Row) -> str | None:
        """Return the class by which demonstrations are balanced, None where there is none."""

    def weight(self, item: Encoded) -> float:
        """Return what a row counts in the mean loss."""

    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's loss of log-probabilities: (places, labels) -> (rows,)."""

    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over the places of rows, of which ``dev_score`` makes the dev score."""

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the dev score of such sums."""

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return a row's answer by its log-probabilities: (places, labels)."""

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare predictions with the rows' answers: the task's metrics with intervals."""


Level = Callable[[Floats], float]
"""A score in percent points of a confusion matrix, (gold K, predicted K)."""


def _accuracy(confusion: Floats) -> float:
    return 100 * float(np.trace(confusion) / confusion.sum())


def _macro_f1(confusion: Floats) -> float:
    return 100 * float(scored.macro_f1(*scored.of_confusion(confusion)))


def _mcc(confusion: Floats) -> float:
    return 100 * float(scored.mcc(*scored.of_confusion(confusion)))


LEVELS: Mapping[str, Level] = {"accuracy": _accuracy, "macro_f1": _macro_f1, "mcc": _mcc}


def check_headline(name: str, known: Iterable[str]) -> None:
    """Raise UserError for a score that rows cannot be judged by."""
    if name not in known:
        raise UserError(f"--headline {name}: unknown; {nearest(name, known)}")


def every_row(row: Row) -> None:
    """Take a row as it is."""


def nothing_more(gold: Sequence[str], predicted: Sequence[str], seed: int) -> dict[str, Any]:
    """Add no scores to the usual ones."""
    return {"intervals": {}}


@dataclass(frozen=True)
class OneLabel:
    """One label a row.

    ``level`` makes the dev score, of the name ``metric``, of a confusion matrix, None for accuracy;
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
    each = ""
    whole = False
    fit = None

    @property
    def headline(self) -> str:
        """The dev score."""
        return self.metric

    @property
    def own(self) -> bool:
        """Whether nothing is spread over other labels."""
        return not self.smoothing

    def places(self, row: Row) -> Sequence[Mapping[str, str]]:
        """Return the one place, which has no fields of its own."""
        return ({},)

    def shown(self, row: Row) -> Row:
        """Return the row as it is."""
        return row

    def _label(self, row: Row) -> str:
        return str(row.fields[self.field])

    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError for a row that is not usable, or has an unknown label."""
        self.usable(row)
        if not answers:
            return
        require([row], [self.field])
        check_label(row, self._label(row), self.names)

    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the number of the row's label."""
        return (self.names.index(self._label(row)),)

    def spoken(self, row: Row) -> Sequence[Sequence[int]]:
        """Return the row's label."""
        return (self.gold(row),)

    def class_of(self, row: Row) -> str | None:
        """Return the row's label."""
        return self._label(row)

    def weight(self, item: Encoded) -> float:
        """Count every row once, or as much as its label weighs."""
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
        """Return 100 for each row that is right, and the rows; or the confusion matrix."""
        best = scores.argmax(1).tolist()
        if self.level is None:
            right = sum(b == item.gold for b, item in zip(best, items, strict=True))
            return 100.0 * right, len(items)
        confusion = np.zeros((len(self.names), len(self.names)))
        for guess, item in zip(best, items, strict=True):
            confusion[item.gold, guess] += 1
        return tuple(confusion.ravel().tolist())

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the level that was asked for."""
        if self.level is None:
            return mean(sums)
        return self.level(np.array(sums).reshape(len(self.names), -1))

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return the likeliest label, and the probabilities of all."""
        by_label = dict(zip(self.names, scores[0].exp().tolist(), strict=True))
        best = max(by_label, key=lambda label: by_label[label])
        return {"label": best, "probabilities": by_label}

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return accuracy, F1, the confusion matrix, and what probabilities tell beyond them."""
        gold, guess = [self._label(row) for row in rows], [str(p["label"]) for p in predictions]
        found = [scored.classification(gold, guess, self.names, seed=seed)]
        found.append(self.more(gold, guess, seed))
        if all("probabilities" in each for each in predictions):
            chances = [each["probabilities"] for each in predictions]
            found.append(certainty(gold, chances, self.names, seed=seed))
        intervals = {name: each for part in found for name, each in part["intervals"].items()}
        return {n: v for part in found for n, v in part.items()} | {"intervals": intervals}


def check_label(row: Row, label: str, names: Sequence[str], flag: str = "--labels") -> None:
    """Raise UserError for a label that is not among the names."""
    if label not in names:
        raise UserError(
            f"{row.where}: unknown label '{label}'; {nearest(label, names)}; "
            f"mend the row, or name the label with {flag}"
        )


def balanced(labels: Sequence[str]) -> dict[str, float]:
    """Return weights that let every label count alike: n / (k * n_c), of n rows and k labels.

    King and Zeng 2001, "Logistic regression in rare events data"; scikit-learn's "balanced".

    >>> balanced(["spam", "ham", "ham", "ham"])
    {'ham': 0.6666666666666666, 'spam': 2.0}
    """
    counts = {name: labels.count(name) for name in sorted(set(labels))}
    return {name: len(labels) / (len(counts) * count) for name, count in counts.items()}


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
