"""What every task is: a value that, bound to a backbone, turns rows into examples and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.injection import Injection, Mixture


@dataclass(frozen=True)
class Encoded:
    """A row as an example, what is right for it, and whether it was cut to fit."""

    example: Example
    gold: int  # label index of a classification; number of target tokens of a generation
    cut: bool
    number: float = 0.0  # what is right for a score
    task: int = 0  # which of several tasks the row is of
    golds: tuple[int, ...] = ()  # the labels of a row that has many
    windows: int = 1  # into how many the row was parted; this is one of them


class Objective(Protocol):
    """What a loop brings down, and the dev score by which it keeps the best."""

    @property
    def metric(self) -> str:
        """The name of the dev score, of which more is better."""

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the example on whose targets the loss is taken."""

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the example on which the dev score is taken."""

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The vocabulary tokens whose logits ``losses`` and ``judge`` take, None for all."""

    def weight(self, item: Encoded) -> float:
        """Return what a row counts in the mean loss: 1, its label's weight, or its targets."""

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the loss of each row, summed over its targets: (rows,)."""

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over rows from ``dev_example``, of which ``dev_score`` makes the dev score.

        They are always as many, such as the rows' scores and weights, or a confusion matrix.
        """

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the dev score of such sums, added up over all rows of one of several tasks."""


def mean(sums: Sequence[float], task: int = 0) -> float:
    """Return the mean of scores by their sum and their weight, what most tasks are measured by."""
    score, weight = sums
    return score / weight


class Bound(Objective, Protocol):
    """A task bound to a backbone. It knows no method, and runs nothing but what it is given."""

    @property
    def task(self) -> Task:
        """The configuration, as it was completed from rows."""

    @property
    def backbone(self) -> Backbone:
        """The backbone whose tokenizer and architecture the examples are for."""

    @property
    def headline(self) -> str:
        """The one of the scores that ``score`` returns by which prompts are compared."""

    @property
    def answer(self) -> str:
        """The key under which ``predict`` gives the answer itself."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template asks for."""

    @property
    def virtual(self) -> int:
        """The number of virtual tokens that the template itself places."""

    def starts(self) -> list[tuple[int, str | None]]:
        """The template's runs of virtual tokens: size and starting text of each."""

    @property
    def classes(self) -> int:
        """The number of classes that a head would score, 0 where there are none."""

    def with_head(self) -> Bound:
        """Return the task for an injection with a head, which scores its classes.

        Raises UserError for a task without classes.
        """

    def without_prompt(self) -> Bound:
        """Return the task with the virtual tokens left out of its template."""

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError, ``FILE:LINE: ...``, at the first row that cannot be used."""

    def instruction(self) -> str:
        """A sentence that describes the task, the default text to start from."""

    def label_text(self) -> str:
        """The words of all labels, for starts; empty where a task has none."""

    def class_of(self, row: Row) -> str | None:
        """The row's class, by which demonstrations are balanced; None where there is none."""

    def demonstration(self, row: Row) -> str:
        """The row with its answer, as text that stands before other rows."""

    def fit_on_dev(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task with what is chosen by dev rows after a training, such as thresholds."""

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Answer rows, after the text ``before``; one object a row."""

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare predictions with the rows' answers: the task's metrics with intervals."""


class Task(Protocol):
    """A task's configuration: a frozen dataclass of plain values."""

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Task:
        """Fill in what the rows tell: labels that were not given, a default template."""

    def bind(self, backbone: Backbone) -> Bound:
        """Return the task as it runs on a backbone."""
