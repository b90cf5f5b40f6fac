"""Labelling: what the classifier asks of a task whose answers are labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.tasks.base import Encoded, Task, mean

Words = Mapping[str, str | Sequence[str]]
"""Each label's word or words."""

Fit = Callable[[Any, Sequence[Row], Sequence[Mapping[str, Any]]], Task]


class LabelTask(Task):
    """A task whose classes are the labels that its configuration names."""

    labels: Words | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, in the order of their names."""
        return tuple(sorted(self.labels or ()))


class Labelling(ABC):
    """Which labels a row has, how they are learned and answered, and how answers are scored.

    A row has one or several *slots*, each of which is given a score for every label: a
    classification has one, where the template ends; a tagging has one a word. ``slot_template``
    follows a row at each of them, empty for one bare slot.

    ``names`` are the labels in the order of their scores, and ``asks`` begins a sentence that
    describes the task, which they end. With ``vocabulary`` label words are learned against the
    whole vocabulary; with ``never_cut`` a row that is too long is refused. ``fit`` completes the
    task by the answers to dev rows after a training. ``needs`` are the fields, beside the
    template's and the label's, that a row must have.
    """

    names: tuple[str, ...]
    metric: str
    answer: str
    asks: str
    slot_template: str = ""
    vocabulary: bool = False
    never_cut: bool = False
    fit: Fit | None = None
    needs: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The score by which prompts are compared."""
        return self.metric

    @property
    def gold_alone(self) -> bool:
        """Whether the loss is that of one gold label alone, so that only its words are read."""
        return False

    def instruction(self, words: Sequence[str]) -> str:
        """Return a sentence that describes the task, with a word for each label."""
        *most, last = words
        return f"{self.asks} {', '.join(most)} or {last}.\n\n"

    def slots(self, row: Row) -> Sequence[Mapping[str, str]]:
        """Return the fields of ``slot_template``, slot by slot."""
        return ({},)

    def as_text(self, row: Row) -> Row:
        """Return the row with texts in the fields that a template may show."""
        return row

    @abstractmethod
    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError, ``FILE:LINE: ...``, for a row that cannot be used."""

    @abstractmethod
    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the numbers of a row's labels."""

    def number(self, row: Row) -> float:
        """Return the number that is right for a row whose labels stand for numbers."""
        return 0.0

    def slot_labels(self, row: Row) -> Sequence[Sequence[int]]:
        """Return the labels whose words stand at each slot of a demonstration."""
        return (self.gold(row),)

    @abstractmethod
    def class_of(self, row: Row) -> str | None:
        """Return the class by which demonstrations are balanced, None where there is none."""

    def weight(self, item: Encoded) -> float:
        """Return what a row counts in the mean loss."""
        return 1

    @abstractmethod
    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's loss of log-probabilities: (slots, labels) -> (rows,)."""

    @abstractmethod
    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over the slots of rows, of which ``dev_score`` makes the dev score."""

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the dev score of such sums."""
        return mean(sums)

    @abstractmethod
    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return a row's answer by its log-probabilities: (slots, labels)."""

    @abstractmethod
    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare predictions with the rows' answers: the task's metrics with intervals."""


def check_headline(name: str, known: Iterable[str]) -> None:
    """Raise UserError for a score that rows cannot be judged by."""
    if name not in known:
        raise UserError(f"--headline {name}: unknown; {nearest(name, known)}")


def check_label(row: Row, label: str, names: Sequence[str], flag: str = "--labels") -> None:
    """Raise UserError for a label that is not among the names."""
    if label not in names:
        raise UserError(
            f"{row.where}: unknown label '{label}'; {nearest(label, names)}; "
            f"mend the row, or name the label with {flag}"
        )
