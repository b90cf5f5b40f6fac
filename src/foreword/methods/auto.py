"""Auto: the method of a run that names none, by what measured best (docs/presets.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.methods.base import Method, Trainable, settle
from foreword.methods.head import Head
from foreword.methods.lora import Lora, has_peft
from foreword.methods.parts.head_starts import has_all
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.relate import Relate
from foreword.tasks.tag import Tag

MANY = 5
"""Labels from which on a head scored higher than label words, on models that have these."""

LABELLED = (Classify, Relate, Multilabel)
"""Tasks with labels of whole rows."""

FEW = 4
"""Training rows a label below which a head was not tried."""

Other = TypeVar("Other", Soft, Lora)

ENCODER_LENGTH = 4
"""Positions of a prefix on an encoder."""

SCARCE, MOST = 150, 1500
"""Rows a label below which each row counts on an encoder, and rows in all."""


def are_scarce(task: Bound, rows: Sequence[Row]) -> bool:
    """Whether each row counts: there are few of each label, and an encoder to read them."""
    few = len(rows) < min(SCARCE * task.classes, MOST)
    measured = isinstance(task.task, Classify | Multilabel | Tag)
    return few and measured and task.backbone.is_encoder


@dataclass(frozen=True)
class Auto:
    """``prefix``, or for label tasks ``prefix+head``, decided when the rows are known.

    Where the template places virtual tokens it is ``soft``, unless settings of a prefix are given.

    A row with one label of many, or with several labels, is scored by a head beside the prefix,
    one of a few labels by their words, and all rows on an encoder by a head, which stands beside
    ``lora`` where rows are few and peft is there; so are tags on an encoder. Other tasks have a
    prefix alone. A ``head`` with a setting of its own is always used, and so is a ``prefix``.
    ``rate_alone`` is the learning rate of a prefix without a head, where its own is the default.
    """

    prefix: Prefix = field(default_factory=Prefix)
    head: Head = field(default_factory=Head)
    rate_alone: float | None = None

    registered_name: ClassVar[str] = "auto"

    @property
    def methods(self) -> tuple[Method, Method]:
        """What is chosen of."""
        return (self.prefix, self.head)

    @property
    def rate(self) -> float:
        """The learning rate of the prefix."""
        return self.prefix.rate

    @property
    def shots(self) -> int | None:
        """How many demonstrations the prefix starts from."""
        return self.prefix.shots

    def alone(self) -> Prefix:
        """Return the prefix without a head."""
        if self.rate_alone is None or self.prefix.rate != Prefix().rate:
            return self.prefix
        return replace(self.prefix, rate=self.rate_alone)

    def choose(self, task: Bound, rows: Sequence[Row]) -> tuple[Method, str | None]:
        """Return the method for a task and its training rows, and why, None where none has labels.

        The reason is a line to show: ``77 labels, 770 rows: prefix+head, since ...``.
        """
        encoder = task.backbone.is_encoder
        # a rate and shots are a prefix's too, and ask for no head
        open_head = self.head == Head(shots=self.head.shots, rate=self.head.rate)
        if task.virtual and open_head and self._open_prefix:
            return self._own_rate(Soft()), "soft, since the template places virtual tokens"
        if not open_head:
            return self._with_head(task), None
        labelled = isinstance(task.task, (*LABELLED, Tag) if encoder else LABELLED)
        if not (labelled and isinstance(task, LabelExamples)):
            return self.alone(), None
        whole = has_all(task, rows)
        head, why = _head_or_words(task, rows, whole)
        name: str = "prefix"
        found: Method = self.alone()
        if head and self._open_prefix and are_scarce(task, rows):
            name, why, found = self._on_few(task, whole)
        elif head:
            name, found = "prefix+head", self._with_head(task)
        labels = task.classes - (task.labelling.no_label is not None)
        return found, f"{labels} labels, {counted(len(rows), 'row')}: {name}, since {why}"

    def _on_few(self, task: Bound, whole: bool) -> tuple[str, str, Method]:
        if has_peft():
            head = replace(self.head, head_start="logistic") if whole else self.head
            lora = self._own_rate(Lora())
            return "lora+head", "it scores best on an encoder and few rows", Several((lora, head))
        why = "lora+head, which scores better on an encoder, needs pip install 'foreword[peft]'"
        return "prefix+head", why, self._with_head(task)

    @property
    def _open_prefix(self) -> bool:
        """Whether no setting of the prefix is given but its learning rate."""
        return replace(self.prefix, rate=Prefix().rate) == Prefix()

    def _own_rate(self, method: Other) -> Other:
        """Return another method with the learning rate that is given, if one is."""
        rate = self.prefix.rate
        return method if rate == Prefix().rate else replace(method, rate=rate)

    def _with_head(self, task: Bound) -> Several:
        short = task.backbone.is_encoder and self._open_prefix
        prefix = replace(self.prefix, length=ENCODER_LENGTH) if short else self.prefix
        return Several((prefix, self.head))

    def settled(self, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Method:
        """Return the method that is chosen, with nothing left open."""
        return settle(self.choose(task, rows)[0], task, rows, alone=alone)

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Make the parameters of the method that is chosen."""
        return self.choose(task, rows)[0].build(task, rows, seed)


def _head_or_words(task: LabelExamples, rows: Sequence[Row], whole: bool) -> tuple[bool, str]:
    """Return whether a head scores the labels, and not their words; and why.

    ``whole`` says that there are rows of every label.
    """
    encoder = task.backbone.is_encoder
    if _own_head(task):
        return False, f"{task.backbone.name} has a head for them"
    several = isinstance(task.task, Multilabel)
    # an encoder tells tags, and several labels of a row, badly by their names
    names_tell = not (encoder and isinstance(task.task, Multilabel | Tag))
    if names_tell and not whole:
        without = "with and without each" if several else "of every"
        return False, f"a head needs rows {without} label"
    if encoder:
        return True, "an encoder has no words to score them by"
    if task.labelling.vocabulary or getattr(task.task, "calibration", "none") != "none":
        return False, "the task's settings are about label words"
    if any(len(words) > 1 for words in task.words.values()):
        return False, "the labels have several words"
    if task.classes < MANY and not several:
        return False, f"label words score few labels better than a head (up to {MANY - 1})"
    if len(rows) < FEW * task.classes:
        return False, f"a head needs about {FEW} rows of each label"
    if several:
        return True, "a head tells the several labels of a row better than their words"
    return True, f"a head scores many labels better than their words (from {MANY})"


def _own_head(task: LabelExamples) -> bool:
    try:
        return task.own_head is not None
    except UserError:  # it is for other labels
        return False
