"""Tasks: configurations that, bound to a backbone, turn rows into examples and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import ClassHead, Injection, Mixture
from foreword.reporter import SILENT, Reporter
from foreword.tasks.objective import Encoded, mean
from foreword.tasks.templates.chat_roles import resolve_roles
from foreword.tasks.templates.frame import framed
from foreword.tasks.templates.layout import (
    FilledTemplate,
    Side,
    fill_template,
    virtual_count,
    with_space,
)
from foreword.tasks.templates.template import Template


class Task(ABC):
    """A task's configuration: a frozen dataclass of plain values, each with a default.

    ``language`` is that of the rows, as a code; None where it is not known, which means English
    templates, and scores by the script of each text.
    ``label_field`` is the field that holds a row's single label, None if rows have none or several.
    ``text_setting`` and ``answer_setting`` name the settings that say which field is read and which
    one holds the answer; None where no single field does.
    ``takes_lists`` says that the fields that are read may be lists of texts.
    ``fusion`` is how an ensemble combines answers (compose/fusion.py), None if it cannot.
    """

    template: str | None = None
    language: str | None = None
    max_length: int = 512
    truncate: Side = "right"
    input_window: int | None = None
    label_field: str | None = None
    text_setting: ClassVar[str | None] = None
    answer_setting: ClassVar[str | None] = None
    takes_lists: ClassVar[bool] = False
    fusion: ClassVar[Literal["labels", "numbers", "texts"] | None] = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that a head scores, in its order; empty for a task without classes."""
        return ()

    @property
    def class_field(self) -> str | None:
        """The field that holds a row's class; None where rows have none, several, or a number."""
        return self.label_field

    @property
    def pair(self) -> tuple[str, str]:
        """The fields of rows that are given as ``(texts, answers)``."""
        text = "text" if self.text_setting is None else getattr(self, self.text_setting)
        answer = "label" if self.answer_setting is None else getattr(self, self.answer_setting)
        return text or "text", answer or "label"

    def check_answer(self, row: Row) -> None:  # noqa: B027  (most tasks check nothing)
        """Raise UserError for a row whose answer cannot be read, whatever the others' are."""

    @abstractmethod
    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Task:
        """Return the task with unset settings filled in from the rows: labels, a template."""

    def framed(self, frame: str, rows: Sequence[Row], backbone: Backbone) -> Task:
        """Return the task completed, with a frame in front of its template: "Please [soft:10]."."""
        whole = self.complete(rows, backbone)
        assert whole.template is not None
        made: Any = whole  # every task is a dataclass
        framed_task: Task = replace(made, template=framed(whole.template, frame))
        return framed_task

    def fill_from_rows(
        self,
        backbone: Backbone,
        rows: Sequence[Row],
        seed: int,
        report: Reporter = SILENT,
    ) -> Task:
        """Return the task with what it learns from training rows, such as label words."""
        return self

    @abstractmethod
    def bind(self, backbone: Backbone) -> Bound:
        """Return the task on a backbone."""


class Bound(ABC):
    """A task bound to a backbone: an ``Objective`` to train on, which also answers rows.

    Knows nothing of methods: it runs whatever injection it is given. ``begun`` says that a method
    starts behind another that begins with the tokenizer's first tokens. ``names`` are rows that
    name the labels, where these are learned too: what is fitted to rows is fitted to them, and
    none of them is shown as a demonstration.
    """

    tokens: tuple[int, ...] | None = None
    classes: int = 0
    begun: bool = False
    names: Sequence[Row] = ()

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
    def reads(self) -> tuple[str, ...]:
        """The fields of a row that its answer may depend on; those the template asks for, or more.

        A row need not have the others.
        """
        return self.fields

    @property
    def pair(self) -> tuple[str, str]:
        """The fields of rows that are given as ``(texts, answers)``."""
        text, answer = self.task.pair
        return (self.fields[0] if len(self.fields) == 1 else text), answer

    @property
    def virtual(self) -> int:
        """The number of virtual tokens in the template."""
        return sum(size for size, _ in self.starts())

    def starts(self) -> list[tuple[int, str | None]]:
        """Return the template's runs of virtual tokens: size and starting text of each."""
        return [(virtual_count(self.backbone, soft), soft.text) for soft in self.template.soft]

    def following(self, left: str, answer: str) -> str:
        """Return an answer as it is written after ``left``."""
        return answer if self.template.close else with_space(left, answer)

    def limit(self, room: int, before: str = "") -> int:
        """Return the most tokens a row may have, with the text ``before`` it: ``room`` or fewer."""
        return min(self.task.max_length + len(self.backbone.text.ids(before)), room)

    def fill(
        self,
        values: Mapping[str, str],
        room: int,
        where: str,
        before: str = "",
        demos: Sequence[str] = (),
        **more: Any,
    ) -> FilledTemplate:
        """Fill the template, truncated to ``limit``; raises UserError if nothing would be left."""
        return fill_template(
            self.backbone,
            self.template,
            values,
            room=self.limit(room, before),
            side=self.task.truncate,
            where=where,
            before=before,
            demos=demos,
            **more,
        )

    def plain_text(self, values: Mapping[str, str]) -> str:
        """Return the filled template as text, without virtual tokens, as text may follow text."""
        whole = "".join(piece for piece in self.template.fill(values) if isinstance(piece, str))
        return whole.removeprefix(self.backbone.text.first) if self.template.chat else whole

    # Variants ----------------------------------------------------------------------------------

    def with_head(self) -> Self:
        """Return the task for an injection with a head, which scores its classes.

        Raises UserError for a task without classes.
        """
        if not self.classes:
            raise UserError("the task has no classes for a head; leave the head out of `method`")
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
        """The name of the dev score; higher is better."""

    @abstractmethod
    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError, ``FILE:LINE: ...``, at the first row that cannot be used."""

    @abstractmethod
    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the example on whose targets the loss is taken."""

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the example on which the dev score is taken."""
        return self.train_example(row, room)

    @property
    def sums_targets(self) -> bool:
        """Whether a row's loss is a sum over its targets, and some may be taken at a time."""
        return False

    def units(self, item: Encoded) -> int:
        """Return how many a row counts as in the mean loss: one, unless its tokens are counted."""
        return 1

    @abstractmethod
    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the loss of each row, summed over its targets: (rows,)."""

    @abstractmethod
    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return sums over rows, from which ``dev_score`` computes the dev score."""

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the dev score from the summed ``dev_counts`` of all rows."""
        return mean(sums)

    def overall(self, scores: Sequence[float]) -> float:
        """Return the score of the one task that this is."""
        (score,) = scores
        return score

    def percent(self, score: float) -> float:
        """Return a dev score in percent of the best there is, to stand beside other tasks'."""
        return score

    def fit_on_dev(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task with what is fitted on dev rows after training, such as thresholds."""
        return self.task

    # Text for starts and demonstrations ---------------------------------------------------------

    @abstractmethod
    def instruction(self) -> str:
        """Return a sentence that describes the task, the default text to start from."""

    def label_text(self) -> str:
        """Return the words of all labels, concatenated; empty without labels."""
        return ""

    def label_paths(self) -> Mapping[str, Sequence[tuple[int, ...]]]:
        """Return the tokens of each label's words at the answer's position, if it has labels."""
        return {}

    def label_encodings(self) -> Tensor | None:
        """Return an encoder's states of its labels, in the order of their names: (labels, width).

        None for a task without labels, and on a model that is no encoder.
        """
        return None

    @property
    def own_head(self) -> ClassHead | None:
        """An encoder's trained head for the task's classes; None where its folder has none.

        Its scores are in the order of ``class_order``. Raises UserError where it has other labels.
        """
        return None

    def class_of(self, row: Row) -> str | None:
        """Return the row's class, by which demonstrations are balanced, or None."""
        return None

    @property
    def class_order(self) -> tuple[str, ...]:
        """The classes in the order of a head's scores; empty without classes."""
        return ()

    def class_shares(self, items: Sequence[Encoded]) -> tuple[Tensor, int | None]:
        """Return how much of each class is right at every target: (targets, classes).

        Rows add up to 1, in the order of ``class_order``. Where a row may have any number of
        classes they are 0 or 1, and the second is the place of the one that stands for none.
        """
        raise NotImplementedError

    @abstractmethod
    def demonstration(self, row: Row) -> str:
        """Return the row with its answer, as text to put before other rows."""

    # Answering ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def answer(self) -> str:
        """The key under which ``predict`` gives the answer itself."""

    @abstractmethod
    def gold_answer(self, row: Row) -> Any:
        """Return a row's right answer, as ``predict`` gives it; a list of texts if several are."""

    def is_right(self, row: Row, answer: Any) -> bool | None:
        """Return whether an answer is right; None where answers are more or less right."""
        return bool(answer == self.gold_answer(row))

    def probability(self, prediction: Mapping[str, Any]) -> float | None:
        """Return the probability of the answer that ``predict`` gave; None where it has none."""
        answer = prediction[self.answer]
        return prediction.get("probabilities", {}).get(answer) if isinstance(answer, str) else None

    def text_of(self, row: Row) -> str:
        """Return what a row's fields say, one line each; of messages the last one asked."""
        values = [row.fields[name] for name in self.fields]
        return "\n".join(map(_as_text, values))

    @abstractmethod
    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Answer rows, each after the text ``before``; one object per row."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """The score, of those in ``score``, by which prompts are compared."""

    @abstractmethod
    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Compare predictions with gold answers: the task's metrics, with confidence intervals."""


def _as_text(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    asked = [each for each in value if isinstance(each, Mapping) and each.get("role") == "user"]
    return str(asked[-1]["content"]) if asked else " ".join(map(str, value))
