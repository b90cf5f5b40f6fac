"""Score: one number a row, read off the model's scores of words that stand for numbers."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.metrics.regression import regression
from foreword.tasks.base import Encoded, Task, mean
from foreword.tasks.classify import Classify, usual_template
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.templates.layout import Side


@dataclass(frozen=True)
class Score:
    """A template that ends in (or, on masked models, holds) the answer, and anchors.

    ``anchors`` maps words to the numbers that they stand for. None makes up to six of them, whole
    numbers spread from ``low`` to ``high``, which are the rows' own range where they are not
    given. Rows of more than ``max_length`` tokens lose text on the side ``truncate``; of
    each field no more than its first ``input_window`` tokens are read.
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    low: float | None = setting(None, help="the lowest number of a score; else that of the rows")
    high: float | None = setting(None, help="the highest number of a score; else that of the rows")
    anchors: Mapping[str, float] | None = setting(
        None, help="number or word=number ...: the words that a score is read off"
    )
    label_field: str = setting("label", help="the field that holds the label")
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Score:
        """Find the range in the rows where none is given, and a template for their shape."""
        template = self.template or usual_template(rows[0], backbone, "Score")
        anchors = self.anchors
        if anchors is None:
            low, high = self.low, self.high
            if low is None or high is None:
                numbers = [number_of(row, self.label_field) for row in rows]
                low = math.floor(min(numbers)) if low is None else low
                high = math.ceil(max(numbers)) if high is None else high
            anchors = spread(low, high)
        ends = min(anchors.values(), default=None), max(anchors.values(), default=None)
        for name, given, end in zip(("low", "high"), (self.low, self.high), ends, strict=True):
            if given is not None and given != end:
                raise UserError(
                    f"{name} is {given:g}, but the anchors end at {end}; leave out one of the two"
                )
        return replace(self, template=template, low=ends[0], high=ends[1], anchors=anchors)

    def bind(self, backbone: Backbone) -> Scorer:
        """Return the task on a backbone; anchors and template must be known by now."""
        if self.template is None or self.anchors is None:
            raise UserError("a score needs a template and anchors; give both, or rows")
        numbers = sorted(self.anchors.values())
        if len(set(numbers)) < max(2, len(numbers)) or not all(map(math.isfinite, numbers)):
            raise UserError(f"a score needs two or more anchors, each of its own number: {numbers}")
        ordered = sorted(self.anchors.items(), key=lambda pair: pair[1])
        words = Classify(
            template=self.template,
            labels={str(number): word for word, number in ordered},
            label_field=self.label_field,
            max_length=self.max_length,
            truncate=self.truncate,
            input_window=self.input_window,
        )
        return Scorer(self, words.bind(backbone), tuple(numbers))


class Scorer:
    """A score bound to a backbone: a classification whose labels are the anchors.

    The answer is the expected number under the anchors' probabilities. The loss is the cross
    entropy to the two anchors around a row's number, weighted so that their mean is that number
    ("two-hot": Farebrother et al. 2024, arXiv:2403.03950). With two anchors this is the regression
    of LM-BFF (Gao et al. 2021, arXiv:2012.15723).
    """

    metric = "negative MSE"
    headline = "pearson"
    answer = "score"
    dev_score = staticmethod(mean)

    def __init__(self, task: Score, anchored: Classifier, numbers: tuple[float, ...]) -> None:
        self.task = task
        self.anchored = anchored
        self.numbers = numbers  # in ascending order, as the labels of ``anchored``
        self.backbone = anchored.backbone

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template asks for."""
        return self.anchored.fields

    @property
    def classes(self) -> int:
        """The number of anchors."""
        return self.anchored.classes

    @property
    def virtual(self) -> int:
        """The number of virtual tokens that the template itself places."""
        return self.anchored.virtual

    def starts(self) -> list[tuple[int, str | None]]:
        """The template's runs of virtual tokens: size and starting text of each."""
        return self.anchored.starts()

    def with_head(self) -> Scorer:
        """Return the task for an injection with a head, which scores the anchors."""
        return Scorer(self.task, self.anchored.with_head(), self.numbers)

    def without_prompt(self) -> Scorer:
        """Return the task with the virtual tokens left out of its template."""
        return Scorer(self.task, self.anchored.without_prompt(), self.numbers)

    # Rows to examples --------------------------------------------------------------------------

    def check(self, rows: Sequence[Row], *, answers: bool) -> None:
        """Raise UserError at the first row that lacks a field, or a number within the range."""
        self.anchored.check(rows, answers=False)
        low, high = self.numbers[0], self.numbers[-1]
        for row in rows if answers else ():
            number = number_of(row, self.task.label_field)
            if not low <= number <= high:
                raise UserError(
                    f"{row.where}: {number:g} is outside the range of {low:g} to {high:g}; "
                    "mend the row, or widen --low and --high"
                )

    def gold(self, row: Row) -> float:
        """Return a row's number."""
        return number_of(row, self.task.label_field)

    def _rounded(self, row: Row) -> Row:
        """Return the row with the nearest anchor as its label."""
        number = self.gold(row)
        nearest = min(self.numbers, key=lambda anchor: abs(anchor - number))
        return Row({**row.fields, self.task.label_field: str(nearest)}, row.where)

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with all nodes of the tree, so that every anchor has its score."""
        return replace(self.anchored.dev_example(self._rounded(row), room), number=self.gold(row))

    dev_example = train_example

    # Logits to answers -------------------------------------------------------------------------

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The tokens that the anchors' words are spelled with, None where all are needed."""
        return self.anchored.tokens

    def weight(self, item: Encoded) -> int:
        """Count every row once."""
        return 1

    def _scores(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return log-probabilities of the anchors: (rows, anchors)."""
        return self.anchored.verbalizer.scores(logits, [item.example for item in items])

    def _target(self, number: float) -> list[float]:
        """Return the two-hot probabilities of the anchors whose mean is the number."""
        above = min(bisect_right(self.numbers, number), len(self.numbers) - 1)
        low, high = self.numbers[above - 1], self.numbers[above]
        target = [0.0] * len(self.numbers)
        target[above] = (number - low) / (high - low)
        target[above - 1] = 1 - target[above]
        return target

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the cross entropy to each row's two anchors: (rows,)."""
        scores = self._scores(logits, items)
        target = [self._target(item.number) for item in items]
        return -(scores * scores.new_tensor(target)).sum(1)

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        """Return minus the summed squared errors, and the number of rows."""
        chances = self._scores(logits, items).double().exp()
        expected = chances @ chances.new_tensor(self.numbers)
        errors = expected - expected.new_tensor([item.number for item in items])
        return -float(errors.square().sum()), len(items)

    def instruction(self) -> str:
        """Name the range in a sentence, the default text to start from."""
        return f"Score the text from {self.numbers[0]:g} to {self.numbers[-1]:g}.\n\n"

    def label_text(self) -> str:
        """Return the words of all anchors, one after the other."""
        return self.anchored.label_text()

    def class_of(self, row: Row) -> str | None:
        """Return the anchor that is nearest to the row's number."""
        return self.anchored.class_of(self._rounded(row))

    def demonstration(self, row: Row) -> str:
        """Return the row as the template shows it, with its nearest anchor's word in place."""
        return self.anchored.demonstration(self._rounded(row))

    def fit_on_dev(self, rows: Sequence[Row], injection: Injection) -> Task:
        """Return the task as it is."""
        return self.task

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return each row's expected number."""
        found = self.anchored.predict(rows, injection, before=before, progress=progress)
        answers = []
        for each in found:
            chances = zip(each["probabilities"].values(), self.numbers, strict=True)
            answers.append({"score": sum(p * number for p, number in chances), "cut": each["cut"]})
        return answers

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return Pearson's and Spearman's correlation, RMSE and MAE."""
        return regression(
            [self.gold(row) for row in rows], [float(p["score"]) for p in predictions], seed=seed
        )


def number_of(row: Row, field: str) -> float:
    """Return a row's number; raises UserError, ``FILE:LINE: ...``, where there is none."""
    require([row], [field])
    value = row.fields[field]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f'{row.where}: field "{field}" is {value!r}, expected a number; mend the row, or use '
            "--task classify"
        )
    return number


def spread(low: float, high: float) -> dict[str, float]:
    """Return up to six words for numbers from low to high, whole ones where the ends are whole.

    >>> spread(1, 3)
    {' 1': 1.0, ' 2': 2.0, ' 3': 3.0}
    """
    if not (low < high and math.isfinite(high - low)):
        raise UserError(
            f"a score needs a range, and {low:g} is not below {high:g}; give --low and --high"
        )
    steps = max(1, min(5, int(high - low)))
    numbers = [low + (high - low) * step / steps for step in range(steps + 1)]
    if low == int(low) and high == int(high):
        numbers = [round(number) for number in numbers]
    return {f" {number:g}": float(number) for number in numbers}
