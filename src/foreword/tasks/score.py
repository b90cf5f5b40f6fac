"""Score: one number per row, by the model's scores of words that stand for numbers."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.regression import regression
from foreword.tasks.base import Task
from foreword.tasks.classify import template_for
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import Labelling
from foreword.tasks.labels.regression import Regression
from foreword.tasks.labels.similar_pair import SimilarPair
from foreword.tasks.objective import Encoded
from foreword.tasks.phrases import language_for, phrase_in
from foreword.tasks.rules import number_of
from foreword.tasks.templates.layout import Side
from foreword.tasks.words import as_follows


@dataclass(frozen=True)
class Score(Task):
    """A template that ends with (on masked models, contains) the answer, and anchors.

    ``anchors`` maps words to the numbers that they stand for. None makes up to six of them, whole
    numbers spread from ``low`` to ``high``, which are the rows' own range where they are not
    given. Rows of more than ``max_length`` tokens lose text on the side ``truncate``; of
    each field no more than its first ``input_window`` tokens are read.

    On an encoder the score of two texts is how alike they are (labels/similar_pair.py). With a head
    ``regression`` makes it one output (labels/regression.py).
    """

    template: str | None = setting(
        None, help="a row as the model reads it: {field}, {demos:4}, [mask], [soft:5], [user] ..."
    )
    low: float | None = setting(None, help="the lowest number of a score; else that of the rows")
    high: float | None = setting(None, help="the highest number of a score; else that of the rows")
    anchors: Mapping[str, float] | None = setting(
        None, help="number or word=number ...: the words that a score is read off"
    )
    regression: bool = setting(
        False, help="a head gives the number itself, and not the chances of the anchors"
    )
    text_field: str = setting(
        "text", help="the field that {text} reads in the template", optional=True
    )
    label_field: str = setting("label", help="the field that holds the label")
    language: str | None = setting(
        None,
        help="language code of the rows, such as zh, for templates and scores; else found",
        optional=True,
    )
    max_length: int = setting(512, help="tokens per row; longer rows are truncated")
    truncate: Side = setting("right", help="the side on which rows are truncated")
    input_window: int | None = setting(None, help="read only the first K tokens of each field")

    fusion: ClassVar[Literal["numbers"]] = "numbers"
    text_setting: ClassVar[str] = "text_field"
    answer_setting: ClassVar[str] = "label_field"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The anchors' numbers, in ascending order."""
        return tuple(spell(number) for number in sorted((self.anchors or {}).values()))

    @property
    def class_field(self) -> None:
        """None: numbers are no classes."""
        return None

    def check_answer(self, row: Row) -> None:
        """Raise UserError for a row without a number."""
        number_of(row, self.label_field)

    def complete(self, rows: Sequence[Row], backbone: Backbone) -> Score:
        """Return the task with the range of the rows and a template, where none is given."""
        language = language_for(self.language, rows)
        template = template_for(
            self.template, self.text_field, rows[0], backbone, phrase_in(language, "Score:")
        )
        anchors = self.anchors
        if anchors is None:
            low, high = self.low, self.high
            if low is None or high is None:
                numbers = [number_of(row, self.label_field) for row in rows]
                low = math.floor(min(numbers)) if low is None else low
                high = math.ceil(max(numbers)) if high is None else high
            found = spread(low, high)
            anchors = {as_follows(template, word): number for word, number in found.items()}
        ends = min(anchors.values(), default=None), max(anchors.values(), default=None)
        for name, given, end in zip(("low", "high"), (self.low, self.high), ends, strict=True):
            if given is not None and given != end:
                raise UserError(
                    f"{name} is {spell(given)}, but the anchors end at {end}; leave out one of "
                    "the two"
                )
        return replace(
            self,
            template=template,
            low=ends[0],
            high=ends[1],
            anchors=anchors,
            language=language,
        )

    def bind(self, backbone: Backbone) -> Classifier:
        """Return the task on a backbone; anchors and template must be known by now."""
        if self.template is None or self.anchors is None:
            raise UserError("a score needs a template and anchors; give both, or rows")
        numbers = sorted(self.anchors.values())
        if len(set(numbers)) < max(2, len(numbers)) or not all(map(math.isfinite, numbers)):
            raise UserError(f"a score needs two or more anchors, each of its own number: {numbers}")
        ordered = sorted(self.anchors.items(), key=lambda pair: pair[1])
        words = {str(number): word for word, number in ordered}
        labelling = Anchors(tuple(words), self.label_field, tuple(numbers))
        if self.regression:
            return Regression(self, backbone, labelling, words)
        made = Classifier(self, backbone, labelling, words)
        if backbone.is_encoder and len(made.fields) == 2:
            return SimilarPair(self, backbone, labelling, words)
        return made


@dataclass(frozen=True)
class Anchors(Labelling):
    """One number per row, by the scores of labels that stand for numbers.

    The answer is the expected number under the anchors' probabilities. The loss is the cross
    entropy to the two anchors around a row's number, weighted so that their mean is that number
    ("two-hot": Farebrother et al. 2024, arXiv:2403.03950). With two anchors this is the regression
    of LM-BFF (Gao et al. 2021, arXiv:2012.15723).
    """

    names: tuple[str, ...]
    field: str
    numbers: tuple[float, ...]  # in ascending order, one a name
    metric = "negative MSE"
    headline = "pearson"
    answer = "score"

    def instruction(self, words: Sequence[str], language: str | None = None) -> str:
        """Return a sentence that names the range."""
        asks = phrase_in(language, "Score the text from LOW to HIGH.\n\n")
        low, high = self.numbers[0], self.numbers[-1]
        return asks.replace("LOW", spell(low)).replace("HIGH", spell(high))

    def check(self, row: Row, *, answers: bool) -> None:
        """Raise UserError for a row that lacks a number within the range."""
        if not answers:
            return
        number, low, high = self.number(row), self.numbers[0], self.numbers[-1]
        if not low <= number <= high:
            raise UserError(
                f"{row.where}: {spell(number)} is outside the range of {spell(low)} to "
                f"{spell(high)}; mend the row, or widen `low` and `high`"
            )

    def percent(self, score: float) -> float:
        """Return 100 for no error, and 0 for one of the whole range in every row."""
        return 100 * (1 + score / (self.numbers[-1] - self.numbers[0]) ** 2)

    def number(self, row: Row) -> float:
        """Return a row's number."""
        return number_of(row, self.field)

    def gold(self, row: Row) -> tuple[int, ...]:
        """Return the anchor that is nearest to a row's number."""
        number = self.number(row)
        distances = [abs(anchor - number) for anchor in self.numbers]
        return (distances.index(min(distances)),)

    def gold_answer(self, row: Row) -> float:
        """Return the row's number."""
        return self.number(row)

    def is_right(self, row: Row, answer: Any) -> bool | None:
        """Return None: a number is more or less right."""
        return None

    def class_of(self, row: Row) -> str | None:
        """Return the name of the nearest anchor."""
        return self.names[self.gold(row)[0]]

    def _target(self, number: float) -> list[float]:
        """Return the two-hot probabilities of the anchors whose mean is the number."""
        above = min(bisect_right(self.numbers, number), len(self.numbers) - 1)
        low, high = self.numbers[above - 1], self.numbers[above]
        target = [0.0] * len(self.numbers)
        target[above] = (number - low) / (high - low)
        target[above - 1] = 1 - target[above]
        return target

    def shares(self, item: Encoded) -> list[list[float]]:
        """Return those of the two anchors around the row's number."""
        return [self._target(item.number)]

    def losses(self, scores: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the cross entropy to each row's two anchors: (rows,)."""
        target = [self._target(item.number) for item in items]
        return -(scores * scores.new_tensor(target)).sum(1)

    def dev_counts(self, scores: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return minus the summed squared errors, and the number of rows."""
        chances = scores.double().exp()
        expected = chances @ chances.new_tensor(self.numbers)
        errors = expected - expected.new_tensor([item.number for item in items])
        return -float(errors.square().sum()), len(items)

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return the expected number."""
        chances = zip(scores[0].exp().tolist(), self.numbers, strict=True)
        return {"score": sum(p * number for p, number in chances)}

    def linear_targets(self, items: Sequence[Encoded]) -> NDArray[Any]:
        """Return the rows' numbers: (rows,)."""
        return np.array([item.number for item in items], float)

    def linear_answer(self, outputs: NDArray[Any]) -> dict[str, Any]:
        """Return the number, within the range."""
        return {"score": float(np.clip(outputs[0], self.numbers[0], self.numbers[-1]))}

    def score(
        self, rows: Sequence[Row], predictions: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return Pearson's and Spearman's correlation, RMSE and MAE."""
        gold = [self.number(row) for row in rows]
        return regression(gold, [float(p["score"]) for p in predictions], seed=seed)


def spread(low: float, high: float) -> dict[str, float]:
    """Return up to six words for numbers from low to high, integers if both ends are.

    >>> spread(1, 3)
    {' 1': 1.0, ' 2': 2.0, ' 3': 3.0}
    """
    if not (low < high and math.isfinite(high - low)):
        raise UserError(
            f"a score needs a range, and {spell(low)} is not below {spell(high)}; give `low` "
            "and `high`"
        )
    steps = max(1, min(5, int(high - low)))
    whole = low == int(low) and high == int(high)
    between = [low + (high - low) * step / steps for step in range(1, steps)]
    numbers = [low, *(round(number, 0 if whole else 5) for number in between), high]
    return {f" {spell(number)}": float(number) for number in numbers}


def spell(number: float) -> str:
    """Write a number so that it is read as the same number.

    >>> spell(3.0), spell(2.5), spell(1000003)
    ('3', '2.5', '1000003')
    """
    return repr(float(number)).removesuffix(".0")
