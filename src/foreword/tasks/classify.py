"""Classify: one label per row, by the model's scores of the label words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError, meant
from foreword.reporter import SILENT, Reporter
from foreword.tasks.labels.calibrate import Calibration
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.examples import ZeroShotAids
from foreword.tasks.labels.from_rows import ShowingTask, choose_label_words
from foreword.tasks.labels.labelling import check_headline
from foreword.tasks.labels.one_label import LEVELS, OneLabel, balance, check_weights
from foreword.tasks.phrases import language_for, phrase_in
from foreword.tasks.rules import labels_in
from foreword.tasks.templates.demonstrations import Choice
from foreword.tasks.templates.layout import Side, with_space
from foreword.tasks.templates.template import literal


@dataclass(frozen=True)
class Classify(ShowingTask):
    """A template that ends with (on masked models, contains) the answer, and a verbalizer.

    ``labels`` maps each label to its word or words; None takes the labels of the rows, with their
    names as words. ``loss`` is taken over the labels, or over the whole "vocabulary".
    ``label_smoothing`` spreads that fraction of each row's target evenly over all labels (Szegedy
    et al. 2016, arXiv:1512.00567). Rows of more than ``max_length`` tokens lose text on the side
    ``truncate``; only the first ``input_window`` tokens of each field are read. ``class_weights``
    multiply the losses of rows by their label's weight; "balanced" gives every label of the
    training rows the same total weight. The ``headline`` score chooses the best parameters and
    compares prompts.

    ``verbalizer`` "search" and "autoprompt" choose the label words by the training rows, and
    "refine" keeps the likely ones among many given words (search.py, autoprompt.py).
    ``calibration`` corrects answers, not the training (calibrate.py). ``demos`` says which training
    rows are shown at ``{demos:N}``; those that were drawn are kept in ``shown``, as objects of
    their fields (demonstrations.py).
    """

    template: str | None = setting(
        None,
        help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ...",
        common=True,
    )
    labels: Mapping[str, str | Sequence[str]] | None = setting(
        None,
        help="label or label=word,word ...; or @FILE of many words; else those of the rows",
        common=True,
    )
    text_field: str = setting(
        "text", help="the field that {text} reads in the template", common=True, optional=True
    )
    label_field: str = setting("label", help="the field that holds the label", common=True)
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")
    loss: Literal["labels", "vocabulary"] = setting(
        "labels", help="over the labels, or over the whole vocabulary"
    )
    label_smoothing: float = setting(
        0.0, help="share of the target that is spread over all answers"
    )
    class_weights: Literal["balanced"] | Mapping[str, float] | None = setting(
        None, help="balanced: every label counts alike in the loss"
    )
    headline: str = setting("accuracy", help="the score to choose by: accuracy, macro_f1 or mcc")
    verbalizer: Literal["manual", "search", "refine", "autoprompt"] = setting(
        "manual", help="how label words are found: manual, search, refine or autoprompt"
    )
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

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Classify:
        """Return the task with the labels of the rows and a template, where none are given."""
        language = language_for(self.language, rows)
        template = template_for(
            self.template, self.text_field, rows[0], backbone, phrase_in(language, "Label:")
        )
        labels, weights = self.labels, self.class_weights
        if labels is None:
            labels = dict.fromkeys(sorted(set(labels_in(rows, self.label_field))), ())
        if weights == "balanced":
            weights = balance(labels_in(rows, self.label_field))
        made = replace(
            self, template=template, labels=labels, language=language, class_weights=weights
        )
        return made.with_words()

    def fill_from_rows(
        self, backbone: Backbone, rows: Sequence[Row], seed: int, report: Reporter = SILENT
    ) -> Classify:
        """Return the task with its demonstrations drawn and its label words chosen.

        Both are plain values of it from then on, and not chosen again. Raises UserError for rows
        that cannot be used, or are too few.
        """
        task = super().fill_from_rows(backbone, rows, seed, report)
        if task.verbalizer == "manual":
            return task
        words = choose_label_words(task.bind(backbone), task.verbalizer, rows, report)
        return replace(task, labels=words, verbalizer="manual")

    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone; labels and template must be known by now."""
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"label_smoothing is {self.label_smoothing}; give a share, from 0 to below 1"
            )
        if self.label_smoothing and self.loss == "vocabulary":
            raise UserError("label_smoothing spreads over labels; use it with loss 'labels'")
        check_headline(self.headline, LEVELS)
        weights = self.class_weights
        if isinstance(weights, str):
            raise UserError(f"class_weights '{weights}' are those of training rows; give rows")
        labelling = OneLabel(
            tuple(self.labels or ()),
            self.label_field,
            metric=self.headline,
            level=None if self.headline == "accuracy" else LEVELS[self.headline],
            smoothing=self.label_smoothing,
            vocabulary=self.loss == "vocabulary",
            weights=weights,
        )
        if weights is not None:
            check_weights(weights, labelling.names)
        aids = ZeroShotAids(self.calibration, self.shown or (), self.demos == "nearest")
        return Classifier(self, backbone, labelling, self.labels, aids)


def template_for(
    template: str | None, text_field: str, row: Row, backbone: Backbone, asked: str
) -> str:
    """Return a template in which ``{text}`` is the field ``text_field``.

    Without one, the lines of a row's text, or of its pair, then what is ``asked``, such as
    "Label:". Raises UserError
    where the row has neither.
    """
    if template is None:
        known = [name for name in (text_field, "text_a", "text_b") if name in row.fields]
        if not known:
            raise UserError(
                f"{row.where}: no field '{text_field}'{meant(text_field, row.fields)}; name the "
                f"field that is read with `text_field`, or say how a row reads with `template`, "
                f"from its fields ({', '.join(row.fields)})",
                field=text_field,
            )
        return asking(backbone, "\n".join(f"{{{name}}}" for name in known), asked)
    return template.replace("{text}", f"{{{text_field}}}")


def asking(backbone: Backbone, body: str, asked: str) -> str:
    """Return a template that shows ``body`` and asks for an answer.

    An encoder is asked for nothing, and reads the body after the prompt of its folder.
    """
    if backbone.pooling is not None:
        return literal(backbone.pooling.prompt) + body
    return f"{body}\n{asked}{with_space(asked, '[mask]') if backbone.fills_masks else ''}"
