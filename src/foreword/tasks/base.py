"""What every task is: a value that, bound to a backbone, turns rows into examples and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.reporter import SILENT, Reporter
from foreword.tasks.templates.chat_roles import resolve_roles
from foreword.tasks.templates.layout import (
    FilledTemplate,
    Side,
    fill_template,
    virtual_count,
    with_space,
)
from foreword.tasks.templates.template import Template


@dataclass(frozen=True)
class Encoded:
    """A row as an example, what is right for it, and whether it was cut to fit."""

    example: Example
    gold: int  # label index of a classification; number of target tokens of a generation
    truncated: bool
    number: float = 0.0  # what is right for a score
    task: int = 0  # which of several tasks the row is of
    golds: tuple[int, ...] = ()  # the labels of a row that has many
    windows: int = 1  # into how many the row was split; this is one of them


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
        """The tokens whose logits ``losses`` and ``dev_counts`` take, None for all."""

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
    """Return the mean of scores by their sum and their weight, the dev score of most tasks."""
    score, weight = sums
    return score / weight


def sum_by_row(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum the values of rows' targets, so many for each row: (targets,) -> (rows,)."""
    owners = torch.repeat_interleave(torch.tensor(sizes, device=values.device))
    return values.new_zeros(len(sizes)).index_add(0, owners, values)


class Task(ABC):
    """A task's configuration: a frozen dataclass of plain values, each with a default.

    ``label_field`` names the field of a row that holds its one label, None where rows have none or
    several. ``fusion`` says how the answers of several prompts become one (compose/fusion.py), None
    where they cannot.
    """

    template: str | None = None
    max_length: int = 512
    truncate: Side = "right"
    input_window: int | None = None
    label_field: str | None = None
    fusion: ClassVar[Literal["labels", "numbers", "texts"] | None] = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that a head would score, in its order; empty where there are none."""
        return ()

    @abstractmethod
    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Task:
        """Return the task with what the rows tell: their labels, a template for their fields."""

    def fill_from_rows(
        self,
        backbone: Backbone,
        rows: Sequence[Row],
        seed: int,
        report: Reporter = SILENT,
    ) -> Task:
        """Return the task with what else it takes from its training rows, such as label words."""
        return self

    @abstractmethod
    def bind(self, backbone: Backbone) -> Bound:
        """Return the task on a backbone."""


class Bound(ABC):
    """A task on a backbone: an ``Objective`` to train on, and what answers rows.

    It knows no method. What every task does alike by its template stands here.
    """

    tokens: tuple[int, ...] | None = None
    classes: int = 0

    def __init__(self, task: Task, backbone: Backbone, template: str) -> None:
        self.task = task
        self.backbone = backbone
        self.template = resolve_roles(Template.parse(template), backbone.text)
        self.headed = False

    # The template ------------------------------------------------------------------------------

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template asks for."""
        return self.template.fields

    @property
    def virtual(self) -> int:
        """The number of virtual tokens that the template itself places."""
        return sum(size for size, _ in self.starts())

    def starts(self) -> list[tuple[int, str | None]]:
        """Return the template's runs of virtual tokens: size and starting text of each."""
        return [(virtual_count(self.backbone, soft), soft.text) for soft in self.template.soft]

    def following(self, left: str, answer: str) -> str:
        """Return an answer as it is written after ``left``."""
        return answer if self.template.close else with_space(left, answer)

    def limit(self, room: int, before: str = "") -> int:
        """Return the most tokens of a row, ``room`` at most, with the text ``before`` it."""
        return min(self.task.max_length + len(self.backbone.text.ids(before)), room)

    def fill(
        self,
        values: Mapping[str, str],
        room: int,
        where: str,
        before: str = "",
        demos: Sequence[str] = (),
    ) -> FilledTemplate:
        """Fill the template within ``limit``; raises UserError where nothing would be left."""
        return fill_template(
            self.backbone,
            self.template,
            values,
            room=self.limit(room, before),
            side=self.task.truncate,
            where=where,
            before=before,
            demos=demos,
        )

    def plain_text(self, values: Mapping[str, str]) -> str:
        """Return the filled template as text, without its virtual tokens."""
        return "".join(piece for piece in self.template.fill(values) if isinstance(piece, str))

    # Variants ----------------------------------------------------------------------------------

    def with_head(self) -> Self:
        """Return the task for an injection with a head, which scores its classes.

        Raises UserError for a task without classes.
        """
        if not self.classes:
            raise UserError("the task has no classes for a head; leave the head out of --method")
        return self.changed(headed=True)

    def without_prompt(self) -> Self:
        """Return the task with the virtual tokens left out of its template."""
        return self.changed(template=self.template.without_virtual_tokens())

    def zero_shot(self) -> Self:
        """Return the task for the frozen model alone: no virtual tokens, and no head."""
        return self.changed(template=self.template.without_virtual_tokens(), headed=False)

    def changed(self, **attributes: Any) -> Self:
        """Return a copy with other attributes."""
        other = copy(self)
        vars(other).update(attributes)
        return other

    # Learning ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def metric(self) -> str:
        """The name of the dev score, of which more is better."""

    @abstractmethod
    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError, ``FILE:LINE: ...``, at the first row that cannot be used."""

    @abstractmethod
    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the example on whose targets the loss is taken."""

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the example on which the dev score is taken."""
        return self.train_example(row, room)

    def weight(self, item: Encoded) -> float:
        """Return what a row counts in the mean loss."""
        return 1

    @abstractmethod
    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the loss of each row, summed over its targets: (rows,)."""

    @abstractmethod
    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over rows from ``dev_example``, which ``dev_score`` is made of."""

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the dev score of such sums, added up over all rows."""
        return mean(sums)

    def fit_on_dev(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task with what is chosen by dev rows after a training, such as thresholds."""
        return self.task

    # Words for methods to start from, and rows to show ------------------------------------------

    @abstractmethod
    def instruction(self) -> str:
        """Return a sentence that describes the task, the default text to start from."""

    def label_text(self) -> str:
        """Return the words of all labels, one after the other; empty where there are none."""
        return ""

    def label_paths(self) -> Mapping[str, Sequence[tuple[int, ...]]]:
        """Return the tokens of each label's words where the answer stands; empty without labels."""
        return {}

    def class_of(self, row: Row) -> str | None:
        """Return the row's class, by which demonstrations are balanced; None where none is."""
        return None

    @abstractmethod
    def demonstration(self, row: Row) -> str:
        """Return the row with its answer, as text that stands before other rows."""

    # Answering ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def answer(self) -> str:
        """The key under which ``predict`` gives the answer itself."""

    @abstractmethod
    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Answer rows, after the text ``before``; one object a row."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """The one of the scores that ``score`` returns by which prompts are compared."""

    @abstractmethod
    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare predictions with the rows' answers: the task's metrics with intervals."""
