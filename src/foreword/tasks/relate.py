"""Relate: the relation of two things that a text names, such as Cause-Effect(e1,e2)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.metrics.relations import official_f1, relations, split_direction
from foreword.tasks.gold import check_ends
from foreword.tasks.labels.calibrate import Calibration
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.examples import ZeroShotAids
from foreword.tasks.labels.from_rows import ShowingTask
from foreword.tasks.labels.one_label import OneLabel
from foreword.tasks.phrases import language_for, phrase_in
from foreword.tasks.rules import labels_in
from foreword.tasks.templates.demonstrations import Choice
from foreword.tasks.templates.layout import Side, with_space
from foreword.tasks.templates.template import literal
from foreword.tasks.words import words_of


@dataclass(frozen=True)
class Relate(ShowingTask):
    """A template that names both things and ends with (or contains) their relation.

    ``labels`` maps each relation to its word or words. None takes those that occur in the rows:
    Cause-Effect(e1,e2) is read as " cause and effect", and (e2,e1) as " effect and cause", as it
    follows "HEAD and TAIL are". ``none`` is the label of rows without a relation, which the
    official score leaves out. ``head_field`` and ``tail_field`` name what must occur in the text.
    ``calibration``, ``demos`` and ``shown`` are those of a classification.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    labels: Mapping[str, str | Sequence[str]] | None = setting(
        None, help="label or label=word,word ...; or @FILE of many words; else those of the rows"
    )
    label_field: str = setting("label", help="the field that holds the label")
    text_field: str = setting("text", help="the field that holds the text")
    head_field: str = setting("head", help="the field that names the head of a relation")
    tail_field: str = setting("tail", help="the field that names its tail")
    none: str = setting("Other", help="the label of rows without a relation")
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    calibration: Calibration = setting(
        "none", help="correct answers by those to blank rows: none, contextual or pmi"
    )
    demos: Choice = setting(
        "balanced", help="which rows stand at {demos:N}: balanced, random, or nearest to each row"
    )
    shown: Sequence[Mapping[str, str]] | None = setting(
        None, help="file of rows used as demonstrations, instead of some of the training rows"
    )

    fusion: ClassVar[Literal["labels"]] = "labels"
    text_setting: ClassVar[str] = "text_field"
    answer_setting: ClassVar[str] = "label_field"

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Relate:
        """Return the task with the relations of the rows and a template, where none are given."""
        template, labels = self.template, self.labels
        language = language_for(self.language, rows)
        if template is None:
            encodes = backbone.pooling is not None
            ends = {"HEAD": f"{{{self.head_field}}}", "TAIL": f"{{{self.tail_field}}}"}
            asks = phrase_in(language, "HEAD and TAIL" if encodes else "HEAD and TAIL are")
            for name, field in ends.items():
                asks = asks.replace(name, field)
            if backbone.fills_masks:
                asks += with_space(asks, "[mask]") + phrase_in(language, ".")
            template = f"{{{self.text_field}}}\n{asks}"
            if backbone.pooling is not None:
                template = literal(backbone.pooling.prompt) + template
        if labels is None:
            labels = dict.fromkeys(sorted(set(labels_in(rows, self.label_field))), ())
        return replace(self, template=template, labels=labels, language=language).with_words()

    @staticmethod
    def words_for(label: str) -> str:
        """Return the words of a relation's name."""
        return phrase(label)

    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone; labels and template must be known by now."""
        names = tuple(self.labels or ())

        def more(gold: Sequence[str], predicted: Sequence[str], seed: int) -> dict[str, Any]:
            return relations(gold, predicted, names, self.none, seed=seed)

        labelling = OneLabel(
            names,
            self.label_field,
            metric="official_f1",
            level=lambda hits, support, claimed: (
                100 * float(official_f1(hits, support, claimed, names, self.none))
            ),
            usable=self._usable,
            more=more,
            needs=(self.text_field, self.head_field, self.tail_field),
            asks="Say how two things of the text relate:",
        )
        aids = ZeroShotAids(self.calibration, self.shown or (), self.demos == "nearest")
        return Classifier(self, backbone, labelling, self.labels, aids)

    def _usable(self, row: Row) -> None:
        """Raise UserError if head or tail are missing, or do not occur in the text."""
        check_ends(row, self.text_field, self.head_field, self.tail_field)


def phrase(label: str) -> str:
    """Return the words of a relation's name, in the order of head and tail.

    >>> phrase("Cause-Effect(e2,e1)"), phrase("Other"), phrase("born_in(e2,e1)")
    (' effect and cause', ' other', ' born in, reversed')
    """
    name, direction = split_direction(label)
    if not direction:
        return words_of(label).lower()
    first, second = direction.split(",")
    turned = first > second
    sides = [words_of(part).strip().lower() for part in re.split("[-:/]", name) if part]
    if len(sides) != 2:
        return words_of(name).lower() + (", reversed" if turned else "")
    return " " + " and ".join(reversed(sides) if turned else sides)
