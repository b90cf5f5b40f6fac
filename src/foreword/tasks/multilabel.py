"""Multilabel: any number of labels per row, each scored against the label ``none``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.classification import macro_f1
from foreword.metrics.multilabel import multilabel
from foreword.metrics.resample import Floats
from foreword.tasks.classify import template_for
from foreword.tasks.gold import check_labels, labels_of
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import Labelling, LabelTask, check_headline
from foreword.tasks.objective import Encoded
from foreword.tasks.phrases import language_for, phrase_in
from foreword.tasks.templates.layout import Side
from foreword.tasks.words import as_follows, words_of

THRESHOLD_STEPS = 129
"""Number of thresholds to try: log-odds from -8 to 8, in steps of 1/8."""


@dataclass(frozen=True)
class Multilabel(LabelTask):
    """A template that ends in (or, on masked models, holds) the answer, and a verbalizer.

    ``labels`` maps each label to its word or words, and so the label ``none``, which stands for
    no label at all. A label's log-odds are its score less that of ``none``: ``z_k = s_k - s_none``;
    the loss is the mean over labels of their binary cross entropies. A row has the labels whose
    probability ``sigmoid(z_k)`` is at least their threshold. ``thresholds`` are fitted on the dev
    rows where they are not given: one for all labels, or one a label (``fit_thresholds``), that
    give the highest F1. A prompt's task says "shared" or "own" of fitted ones, which are fitted
    again when it is tuned again, and "off" of others.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    labels: Mapping[str, str | Sequence[str]] | None = setting(
        None, help="label or label=word,word ...; or @FILE of many words; else those of the rows"
    )
    text_field: str = setting(
        "text", help="the field that {text} reads in the template", optional=True
    )
    labels_field: str = setting("labels", help="the field that holds the list of labels")
    none: str = setting("none", help="the label of rows without a label")
    thresholds: Mapping[str, float] | None = setting(
        None, help="label=probability ...: a row has a label from there on; else fitted on dev rows"
    )
    fit_thresholds: Literal["auto", "shared", "own", "off"] = setting(
        "auto",
        help="fit one threshold for all labels (shared), one for each (own), or none (off); auto "
        "is shared where no thresholds are given",
    )
    headline: str = setting("micro_f1", help="the score to choose by: micro_f1 or macro_f1")
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")

    text_setting: ClassVar[str] = "text_field"
    answer_setting: ClassVar[str] = "labels_field"

    def check_answer(self, row: Row) -> None:
        """Raise UserError for a row without a list of labels."""
        labels_of(row, self.labels_field)

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Multilabel:
        """Return the task with the labels of the rows and a template, where none are given."""
        language = language_for(self.language, rows)
        template = template_for(
            self.template, self.text_field, rows[0], backbone, phrase_in(language, "Labels:")
        )
        labels = dict(self.labels or {})
        if not labels:
            names = sorted({name for row in rows for name in labels_of(row, self.labels_field)})
            labels = dict.fromkeys(names, ())
        if not labels.get(self.none):
            labels[self.none] = as_follows(template, phrase_in(language, words_of(self.none)))
        fits = self.fit_thresholds
        if fits == "auto":
            fits = "off" if self.thresholds else "shared"
        made = replace(
            self, template=template, labels=labels, language=language, fit_thresholds=fits
        )
        return made.with_words()

    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone; labels and template must be known by now."""
        names = tuple(self.labels or ())
        given = dict(self.thresholds or {})
        check_headline(self.headline, ("micro_f1", "macro_f1"))
        if self.labels is not None and self.none not in names:
            raise UserError(f"labels lack '{self.none}', which stands for no label; add it")
        for name, value in given.items():
            check_threshold(name, value, [each for each in names if each != self.none])
        labelling = ManyLabels(
            names,
            self.labels_field,
            self.none,
            tuple(given.get(name, 0.5) for name in names if name != self.none),
            self.headline,
            self.fit_thresholds == "own",
            fit=choose_thresholds if self.fit_thresholds in ("shared", "own") else None,
        )
        return Classifier(self, backbone, labelling, self.labels)


@dataclass(frozen=True)
class ManyLabels(Labelling):
    """Any number of labels per row, of those in ``names`` except ``none``.

    The dev score is the F1 at the best thresholds for the dev rows themselves, of the kind that
    will be fitted, so that it does not depend on a threshold chosen later.
    """

    names: tuple[str, ...]
    field: str
    none: str
    thresholds: tuple[float, ...]  # of the labels but none, in their order
    metric: str
    apart: bool
    fit: Any = None
    answer = "labels"
    asks = "Name all that holds for the text:"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that a row may have."""
        return tuple(name for name in self.names if name != self.none)

    @property
    def no_label(self) -> str | None:
        """The label of rows without a label."""
        return self.none

    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError unless the labels are a list of known ones without repeats."""
        if not answers:
            return
        check_labels(row, self.field, self.none, self.labels)

    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the indices of the row's labels, ``none`` not counted."""
        own = labels_of(row, self.field)
        return tuple(n for n, name in enumerate(self.labels) if name in own)

    def gold_answer(self, row: Row) -> list[str]:
        """Return the row's labels."""
        return [self.labels[number] for number in self.gold(row)]

    def slot_labels(self, row: Row) -> Sequence[Sequence[int]]:
        """Return the indices of the row's labels among all names, or that of ``none``."""
        own = [self.names.index(self.labels[number]) for number in self.gold(row)]
        return (own or [self.names.index(self.none)],)

    def class_of(self, row: Row) -> str | None:
        """Return the row's labels as one."""
        return ", ".join(sorted(labels_of(row, self.field)))

    def odds(self, scores: Tensor) -> Tensor:
        """Return each label's log-odds against ``none``: (rows, names) -> (rows, labels)."""
        own = [number for number, name in enumerate(self.names) if name != self.none]
        return scores[:, own] - scores[:, [self.names.index(self.none)]]

    def shares(self, item: Encoded) -> list[list[float]]:
        """Return 1 for each of the row's labels, and 0 for ``none``."""
        own = {self.labels[number] for number in item.golds}
        return [[float(name in own) for name in self.names]]

    def _held(self, items: Sequence[Encoded]) -> Tensor:
        """Return the gold labels as 0 and 1: (rows, labels)."""
        held = torch.zeros(len(items), len(self.labels))
        for row, item in enumerate(items):
            held[row, list(item.golds)] = 1
        return held

    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the mean binary cross entropy of each row's labels: (rows,)."""
        held = self._held(items).to(scores)
        odds = self.odds(scores)
        return F.binary_cross_entropy_with_logits(odds, held, reduction="none").mean(1)

    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return how many rows with and without each label would be given it at each threshold."""
        odds = self.odds(scores).double().cpu().numpy()
        counts = count_at_steps(odds, self._held(items).numpy().astype(np.float64))
        return tuple(counts.ravel().tolist())

    def dev_score(self, sums: Sequence[float]) -> float:
        """Return the best F1 of summed counts, in percent."""
        counts = np.array(sums).reshape(3, THRESHOLD_STEPS, len(self.labels))
        best = best_steps(counts, self.metric, apart=self.apart)
        return 100 * float(f1_at(counts, best, self.metric))

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return the labels whose probabilities reach their thresholds, and all probabilities."""
        chances = torch.sigmoid(self.odds(scores)[0].double()).tolist()
        by_label = dict(zip(self.labels, chances, strict=True))
        limits = zip(by_label.items(), self.thresholds, strict=True)
        return {
            "labels": [name for (name, chance), limit in limits if chance >= limit],
            "probabilities": by_label,
        }

    def linear_targets(self, items: Sequence[Encoded]) -> NDArray[Any]:
        """Return which labels rows have, as 0 and 1: (rows, labels).

        One label alone makes two classes, (rows,): 0 where a row has it, and 1 where not.
        """
        held = self._held(items).numpy().astype(int)
        return held if len(self.labels) > 1 else 1 - held[:, 0]

    def linear_answer(self, outputs: NDArray[Any]) -> dict[str, Any]:
        """Return the labels that are more likely than not, and all probabilities."""
        by_label = dict(zip(self.labels, outputs[0].tolist(), strict=False))  # none is not learned
        names = [name for name, chance in by_label.items() if chance >= 0.5]
        return {"labels": names, "probabilities": by_label}

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return micro and macro F1, exact match, and each label's scores."""
        chances = [each["probabilities"] for each in predictions]
        return multilabel(
            [labels_of(row, self.field) for row in rows],
            [each["labels"] for each in predictions],
            self.labels,
            probabilities=chances,
            seed=seed,
        )


def check_threshold(name: str, value: float, names: Sequence[str]) -> None:
    """Raise UserError for a threshold of an unknown label, or outside 0 to 1."""
    if name not in names:
        raise UserError(f"thresholds: unknown label '{name}'; it has {', '.join(names)}")
    if not 0 <= value <= 1:
        raise UserError(f"thresholds: {value:g} of '{name}' is no probability; give 0 to 1")


def choose_thresholds(
    task: Multilabel, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]]
) -> Multilabel:
    """Return the task with the thresholds that give the highest F1 on rows with these answers."""
    names = list(predictions[0]["probabilities"])
    chances = np.array([[p["probabilities"][name] for name in names] for p in predictions])
    own = [labels_of(row, task.labels_field) for row in rows]
    held = np.array([[float(name in each) for name in names] for each in own])
    with np.errstate(divide="ignore"):
        odds = np.log(chances) - np.log1p(-chances)
    counts = count_at_steps(odds, held)
    best = best_steps(counts, task.headline, apart=task.fit_thresholds == "own")
    limits = 1 / (1 + np.exp(-_log_odds_steps()[best]))
    return replace(task, thresholds=dict(zip(names, limits.tolist(), strict=True)))


def _log_odds_steps() -> Floats:
    return np.linspace(-8, 8, THRESHOLD_STEPS)


def count_at_steps(odds: Floats, held: Floats) -> Floats:
    """Hits, support and claims of each label at each threshold: (3, STEPS, labels)."""
    support, counts = held.sum(0), np.empty((3, THRESHOLD_STEPS, held.shape[1]))
    for number, step in enumerate(_log_odds_steps()):
        above = odds >= step  # (rows, labels)
        counts[:, number] = (above * held).sum(0), support, above.sum(0)
    return counts


def f1_at(counts: Floats, steps: NDArray[np.int64], kind: str) -> Floats:
    """Return the F1, 0 to 1, with a separate threshold for each label."""
    hits, support, claimed = (np.take_along_axis(part, steps[None], 0)[0] for part in counts)
    if kind == "micro_f1":
        return np.asarray(2 * hits.sum() / max(support.sum() + claimed.sum(), 1))
    return macro_f1(hits, support, claimed)


def best_steps(counts: Floats, kind: str, *, apart: bool) -> NDArray[np.int64]:
    """Return the step of each label's best threshold by F1: (labels,).

    On a tie the middle one is taken. Unless ``apart``, one step by the F1 ``kind`` for all labels.
    """
    if apart:
        f1 = 2 * counts[0] / np.maximum(counts[1] + counts[2], 1)  # (STEPS, labels)
        return np.array([_middle(column) for column in f1.T])
    labels = counts.shape[2]
    levels = np.array(
        [f1_at(counts, np.full(labels, step), kind) for step in range(THRESHOLD_STEPS)]
    )
    return np.full(labels, _middle(levels))


def _middle(levels: Floats) -> int:
    best = np.flatnonzero(levels >= levels.max() - 1e-12)
    return int(best[len(best) // 2])
