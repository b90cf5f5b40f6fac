"""Labelling: the part of a label task that differs between tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.tasks.base import Task
from foreword.tasks.labels.verbalizer import normalize
from foreword.tasks.objective import Encoded, mean
from foreword.tasks.phrases import one_of
from foreword.tasks.words import as_follows, words_of

Words = Mapping[str, str | Sequence[str]]
"""Each label's word or words; one without any is read as its name."""

Fit = Callable[[Any, Sequence[Row], Sequence[Mapping[str, Any]]], Task]


class LabelTask(Task):
    """A task whose classes are the labels that its configuration names."""

    labels: Words | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, in the order of their names."""
        return tuple(sorted(self.labels or ()))

    @property
    def answer_template(self) -> str:
        """The template whose answer is a label's words."""
        return self.template or ""

    def with_words(self) -> Self:
        """Return the task with the words of their names for labels without any.

        Raises UserError for labels that cannot be told apart.
        """
        labels = {str(name): own for name, own in (self.labels or {}).items()}
        words = {name: own or self.usual_words(name) for name, own in labels.items()}
        return replace(self, labels=normalize(words))  # type: ignore[type-var]

    def usual_words(self, label: str) -> str:
        """Return the words of a label for which none are given, as they follow the template."""
        return as_follows(self.answer_template, self.words_for(label))

    @staticmethod
    def words_for(label: str) -> str:
        """Return the words of a label's name."""
        return words_of(label)


class Labelling(ABC):
    """Which labels a row has, their loss, the answer and its scores.

    A row has one or more *slots*, each of which gets a score for every label: a classification has
    one, at the end of the template; tagging has one per word. ``slot_template`` is the text of a
    slot, empty for a bare one.

    ``names`` are the labels in the order of their scores; ``asks`` begins a sentence that describes
    the task and ends with the labels. With ``vocabulary`` the loss is over the whole vocabulary;
    with ``never_cut`` rows that are too long raise an error. ``fit`` fits the task on dev rows
    after training. ``needs`` are required fields besides the template's and the label's.
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
        """Whether the loss needs the gold label's score alone, so that only its words are read."""
        return False

    @property
    def no_label(self) -> str | None:
        """The label that stands for none, where a row may have any number of them."""
        return None

    def instruction(self, words: Sequence[str], language: str | None = None) -> str:
        """Return a sentence that describes the task, with a word for each label."""
        return one_of(language, self.asks, words)

    def slots(self, row: Row) -> Sequence[Mapping[str, str]]:
        """Return the fields of ``slot_template``, slot by slot."""
        return ({},)

    def as_text(self, row: Row) -> Row:
        """Return the row with text in every field that a template may show."""
        return row

    @abstractmethod
    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError, ``FILE:LINE: ...``, for a row that cannot be used."""

    @abstractmethod
    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the indices of a row's labels."""

    def gold_answer(self, row: Row) -> Any:
        """Return a row's right answer, as ``answer_of`` gives it."""
        return self.names[self.gold(row)[0]]

    def is_right(self, row: Row, answer: Any) -> bool | None:
        """Return whether an answer is right; None where answers are more or less right."""
        return bool(answer == self.gold_answer(row))

    def number(self, row: Row) -> float:
        """Return the gold number of a row, for labels that stand for numbers."""
        return 0.0

    def slot_labels(self, row: Row) -> Sequence[Sequence[int]]:
        """Return the labels whose words fill each slot of a demonstration."""
        return (self.gold(row),)

    @abstractmethod
    def class_of(self, row: Row) -> str | None:
        """Return the class by which demonstrations are balanced, or None."""

    def shares(self, item: Encoded) -> list[list[float]]:
        """Return how much of each label is right at each slot, as ``Bound.class_shares`` does."""
        return [[float(n == gold) for n in range(len(self.names))] for gold in item.golds]

    def units(self, item: Encoded) -> int:
        """Return how many a row counts as in the mean loss."""
        return 1

    def importance(self, item: Encoded) -> float:
        """Return what a row's loss is multiplied by."""
        return 1

    @abstractmethod
    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's loss from log-probabilities: (slots, labels) -> (rows,)."""

    @abstractmethod
    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over slots, from which ``dev_score`` computes the dev score."""

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the dev score from summed ``dev_counts``."""
        return mean(sums)

    def percent(self, score: float) -> float:
        """Return a dev score in percent of the best there is."""
        return score

    @abstractmethod
    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return a row's answer from its log-probabilities: (slots, labels)."""

    def linear_targets(self, items: Sequence[Encoded]) -> NDArray[Any]:
        """Return what a linear model on states learns: a class for each slot, (slots,)."""
        return np.array([label for item in items for label in item.golds])

    def linear_answer(self, outputs: NDArray[Any]) -> dict[str, Any]:
        """Return a row's answer from what such a model says: probabilities, (slots, labels)."""
        return self.answer_of(torch.from_numpy(np.log(np.maximum(outputs, 1e-30))))

    @abstractmethod
    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare predictions with gold labels: the task's metrics, with confidence intervals."""


def check_headline(name: str, known: Iterable[str]) -> None:
    """Raise UserError for an unknown headline score."""
    if name not in known:
        raise UserError(f"`headline={name}`: unknown; {nearest(name, known)}")
