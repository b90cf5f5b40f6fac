"""What changed? Labels, rows and certainty under the prompt, beside the untouched model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreword.evaluation.evaluation import Answered, Evaluation
from foreword.metrics.resample import Interval, bootstrap
from foreword.report.left_out import LeftOut
from foreword.report.subject import Subject

SHOWN = 5
"""Rows that are shown of each kind."""

PARTS = 4
"""Groups of equal size into which rows are put by their length."""

BINS = 10
"""Bins of equal width, of probabilities."""


@dataclass(frozen=True)
class LabelChange:
    """A label: how many of its rows are right before and after, in percent, won and lost."""

    label: str
    rows: int
    before: float
    after: float
    won: int
    lost: int


@dataclass(frozen=True)
class Confusion:
    """What is taken for what, in rows, before and after: (labels, labels), gold by answer."""

    labels: Sequence[str]
    before: Sequence[Sequence[int]]
    after: Sequence[Sequence[int]]


@dataclass(frozen=True)
class ShownRow:
    """A row with the answers to it; ``by`` is why it is shown, as a number.

    ``by`` is the gain in its score or its right label's probability, the probability of its answer,
    or the distance of the two likeliest.
    """

    text: str
    gold: str
    before: str
    after: str
    by: float


@dataclass(frozen=True)
class Rows:
    """Rows that are worth reading; ``gain`` says in what helped and hurt are counted."""

    gain: str
    helped: Sequence[ShownRow]
    hurt: Sequence[ShownRow]
    confident: Sequence[ShownRow] | LeftOut
    boundary: Sequence[ShownRow] | LeftOut


@dataclass(frozen=True)
class Bin:
    """Answers of similar probability: the mean of it, and how many of them are right, 0 to 1."""

    probability: float
    right: float
    rows: int


@dataclass(frozen=True)
class Calibration:
    """Whether answers are as often right as they are probable; errors in percent points."""

    before: Sequence[Bin]
    after: Sequence[Bin]
    error_before: float
    error_after: float


@dataclass(frozen=True)
class LengthGroup:
    """Rows of similar length, in tokens, and their mean scores before and after."""

    least: int
    most: int
    rows: int
    before: Interval
    after: Interval


@dataclass(frozen=True)
class Changes:
    """All that changed; a part that does not apply says why."""

    labels: Sequence[LabelChange] | LeftOut
    confusion: Confusion | LeftOut
    rows: Rows
    calibration: Calibration | LeftOut
    lengths: Sequence[LengthGroup] | LeftOut
    spread: tuple[Sequence[float], Sequence[float]] | LeftOut
    by_row: str


def measure_changes(subject: Subject) -> Changes:
    """Set a prompt's answers beside those of the untouched model."""
    before, after = subject.untouched, subject.tuned
    spread: Any = LeftOut("answers are right or wrong, so their scores have no spread")
    if not subject.scores.binary:
        spread = (subject.scores_before.values, subject.scores.values)
    return Changes(
        labels=label_changes(before.rows, after.rows),
        confusion=_confusion(before, after),
        rows=_rows(subject),
        calibration=calibration(before, after),
        lengths=_lengths(subject),
        spread=spread,
        by_row=subject.scores.name,
    )


def label_changes(
    before: Sequence[Answered], after: Sequence[Answered]
) -> list[LabelChange] | LeftOut:
    """Count for each gold label the rows, or the words, that are given it before and after."""
    if not {"label", "labels", "tags"} & after[0].prediction.keys():
        return LeftOut("no gain by label: answers are no labels")
    found: dict[str, list[tuple[bool, bool]]] = {}
    for old, new in zip(before, after, strict=True):
        for (label, was), (_, now) in zip(_given(old), _given(new), strict=True):
            found.setdefault(label, []).append((was, now))
    return [
        LabelChange(
            label,
            len(pairs),
            100 * sum(old for old, _ in pairs) / len(pairs),
            100 * sum(new for _, new in pairs) / len(pairs),
            sum(new and not old for old, new in pairs),
            sum(old and not new for old, new in pairs),
        )
        for label, pairs in sorted(found.items())
    ]


def _given(row: Answered) -> Iterator[tuple[str, bool]]:
    """Yield the labels that a row, or each of its words, has, and whether it is given them."""
    if isinstance(row.gold, str):
        yield row.gold, bool(row.right)
    elif "tags" in row.prediction:
        yield from ((tag, tag == said) for tag, said in zip(row.gold, row.answer, strict=False))
    else:
        yield from ((label, label in row.answer) for label in row.gold)


def _confusion(before: Evaluation, after: Evaluation) -> Confusion | LeftOut:
    if before.confusion is None or after.confusion is None:
        return LeftOut("no confusion matrix: answers are not one label a row")
    own, old = after.confusion, before.confusion
    place = [old["labels"].index(label) for label in own["labels"]]
    matrix = [[old["matrix"][i][j] for j in place] for i in place]
    return Confusion(own["labels"], matrix, own["matrix"])


# Rows ----------------------------------------------------------------------------------------


def _rows(subject: Subject) -> Rows:
    before, after = subject.untouched.rows, subject.tuned.rows
    gains, counted = _gains(subject)
    order = sorted(range(len(after)), key=lambda n: -gains[n])

    def shown(n: int, by: float) -> ShownRow:
        old, new = before[n], after[n]
        return ShownRow(new.text, _said(new.gold), _said(old.answer), _said(new.answer), by)

    confident: Sequence[ShownRow] | LeftOut
    boundary: Sequence[ShownRow] | LeftOut
    known = [(n, row.probability) for n, row in enumerate(after) if row.probability is not None]
    if known:
        wrong = [(p, n) for n, p in known if after[n].right is False]
        confident = [shown(n, 100 * p) for p, n in sorted(wrong, key=lambda e: (-e[0], e[1]))]
        margins = sorted((_margin(after[n].prediction), n) for n, _ in known)
        boundary = [shown(n, 100 * margin) for margin, n in margins[:SHOWN]]
    else:
        confident = boundary = LeftOut("answers of this task have no probabilities")
    return Rows(
        gain=counted,
        helped=[shown(n, gains[n]) for n in order[:SHOWN] if gains[n] > 0],
        hurt=[shown(n, gains[n]) for n in order[::-1][:SHOWN] if gains[n] < 0],
        confident=confident if isinstance(confident, LeftOut) else confident[:SHOWN],
        boundary=boundary,
    )


def _gains(subject: Subject) -> tuple[list[float], str]:
    """Return how much each row gains, and in what that is counted."""
    pairs = list(zip(subject.untouched.rows, subject.tuned.rows, strict=True))
    if all(_has_chances(old) and _has_chances(new) for old, new in pairs):
        counted = "probability of the right label"
        return [100 * (_of_gold(new) - _of_gold(old)) for old, new in pairs], counted
    rows = zip(subject.scores_before.values, subject.scores.values, strict=True)
    return [new - old for old, new in rows], subject.scores.name


def _has_chances(row: Answered) -> bool:
    return isinstance(row.gold, str) and row.gold in _chances(row.prediction)


def _of_gold(row: Answered) -> float:
    return _chances(row.prediction)[row.gold]


def _chances(prediction: Mapping[str, Any]) -> dict[str, float]:
    found = prediction.get("probabilities")
    return dict(found) if isinstance(found, Mapping) else {}


def _margin(prediction: Mapping[str, Any]) -> float:
    """Return by how much the likeliest answer is likelier than the next."""
    ordered = sorted(_chances(prediction).values(), reverse=True)
    return ordered[0] - ordered[1] if len(ordered) > 1 else 1.0


def _said(answer: Any) -> str:
    if isinstance(answer, float):
        return f"{answer:.2f}"
    return ", ".join(map(str, answer)) if isinstance(answer, list | tuple) else str(answer)


# Certainty and length ------------------------------------------------------------------------


def calibration(before: Evaluation, after: Evaluation) -> Calibration | LeftOut:
    """Set how often answers are right against their probabilities."""
    if "ece" not in after.plain or any(row.probability is None for row in after.rows):
        return LeftOut("no calibration: answers have no probability of one label")
    return Calibration(
        bins(before.rows), bins(after.rows), float(before["ece"]), float(after["ece"])
    )


def bins(rows: Sequence[Answered]) -> list[Bin]:
    """Put answers into bins by their probability, each closed on the right; empty ones are left."""
    chances = np.array([row.probability for row in rows], dtype=np.float64)
    right = np.array([bool(row.right) for row in rows], dtype=np.float64)
    place = np.clip(np.ceil(chances * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        Bin(float(chances[own].mean()), float(right[own].mean()), int(own.sum()))
        for own in (place == n for n in range(BINS))
        if own.any()
    ]


def _lengths(subject: Subject) -> list[LengthGroup] | LeftOut:
    ids = subject.bound.backbone.text.ids
    sizes = np.array([len(ids(row.text)) for row in subject.tuned.rows])
    if len(set(sizes.tolist())) < PARTS or len(sizes) < 2 * PARTS:
        return LeftOut("no score by length: the rows are too few, or all of one length")
    edges = np.quantile(sizes, np.linspace(0, 1, PARTS + 1))[1:-1]
    place = np.searchsorted(edges, sizes, side="left")
    scale = 1.0 if subject.scores.percent else 100.0
    groups = []
    for n in sorted(set(place.tolist())):
        own = np.flatnonzero(place == n)
        old, new = (
            bootstrap([scale * each.values[i] / 100 for i in own.tolist()], subject.seed)
            for each in (subject.scores_before, subject.scores)
        )
        least, most = int(sizes[own].min()), int(sizes[own].max())
        if scale != 1.0:
            old, new = (Interval(i.value / 100, i.low / 100, i.high / 100) for i in (old, new))
        groups.append(LengthGroup(least, most, len(own), old, new))
    return groups
