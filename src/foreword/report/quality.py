"""Is it good? The score of a prompt beside all that could stand in its place, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from foreword.evaluation.evaluation import Evaluation
from foreword.grammar import counted
from foreword.metrics.paired import difference, paired_difference
from foreword.metrics.resample import Interval
from foreword.metrics.titles import IN_UNITS, title
from foreword.report.left_out import LeftOut
from foreword.report.row_scores import row_scores
from foreword.report.subject import Subject

Kind = Literal["prompt", "training", "untouched", "demonstrations", "probe"]

WIDE = 5.0
"""Points between training and other rows from which on a gap is named, if it is no chance."""


@dataclass(frozen=True)
class System:
    """What was scored: its score with a 95% interval.

    ``ahead`` is how much better the rows' scores are under the prompt, row by row; None of the
    prompt itself.
    """

    kind: Kind
    name: str
    rows: int
    score: float
    low: float
    high: float
    ahead: Interval | None = None


@dataclass(frozen=True)
class Gap:
    """How much better the rows' scores are on training rows; ``wide`` if that is no chance."""

    value: Interval
    wide: bool


@dataclass(frozen=True)
class Quality:
    """The scores of a prompt and of all that stands beside it; ``by_row`` names a row's score."""

    metric: str
    by_row: str
    percent: bool
    systems: Sequence[System]
    gap: Gap | None
    in_train: int | None
    cut: int
    left_out: Sequence[LeftOut]
    further: Sequence[tuple[str, float, Sequence[float]]] = field(default=())

    @property
    def tuned(self) -> System:
        """The prompt itself."""
        return self.systems[0]

    def of(self, kind: Kind) -> System | None:
        """Return what is of a kind."""
        return next((each for each in self.systems if each.kind == kind), None)


def measure_quality(subject: Subject) -> Quality:
    """Score a prompt, the untouched model, demonstrations in context and a linear probe."""
    tuned = subject.tuned
    systems = [_system("prompt", subject.name, tuned)]
    left_out = []
    trained, gap = subject.trained, None
    if isinstance(trained, LeftOut):
        left_out.append(trained)
    else:
        systems.append(_system("training", "the same on training rows", trained))
        of_train = row_scores(trained.rows)
        value = difference(of_train.values, subject.scores.values, subject.seed)
        gap = Gap(value, value.low > 0 and value.value >= WIDE and of_train.percent)
    others: dict[Kind, Evaluation | LeftOut] = {
        "untouched": subject.untouched,
        "demonstrations": subject.demonstrated,
        "probe": subject.probed,
    }
    for kind, found in others.items():
        if isinstance(found, LeftOut):
            left_out.append(found)
            continue
        ahead = paired_difference(
            subject.scores.values, row_scores(found.rows).values, subject.seed
        )
        systems.append(_system(kind, _called(kind, found), found, ahead))
    shown = {tuned.headline, *IN_UNITS}
    return Quality(
        metric=tuned.headline,
        by_row=subject.scores.name,
        percent=subject.scores.percent,
        systems=systems,
        gap=gap,
        in_train=subject.in_train,
        cut=tuned.truncated,
        left_out=left_out,
        further=[
            (title(name), value, tuned.intervals[name])
            for name, value in tuned.scores.items()
            if name not in shown
        ],
    )


def _system(kind: Kind, name: str, found: Evaluation, ahead: Interval | None = None) -> System:
    low, high = found.interval
    return System(kind, name, len(found.rows), found.score, low, high, ahead)


def _called(kind: Kind, found: Evaluation) -> str:
    if kind == "demonstrations":
        return f"{counted(found['shots'], 'demonstration')} in context"
    return f"{found['model']} on states" if kind == "probe" else "untouched model"


# In words ------------------------------------------------------------------------------------


def verdict(quality: Quality) -> str:
    """Say in one sentence whether the prompt is worth having."""
    tuned = quality.tuned
    said = (
        f"{_score(quality, tuned)} on {counted(tuned.rows, 'row')}: {_beside(quality, 'untouched')}"
    )
    rivals = [each for kind in ("demonstrations", "probe") if (each := quality.of(kind))]
    if rivals:
        hardest = min(rivals, key=lambda each: each.ahead.value if each.ahead else 0.0)
        said += f", and {_beside(quality, hardest.kind)}"
    if quality.gap is not None and quality.gap.wide:
        said += f"; rows that it was tuned on are {quality.gap.value.value:.0f} points ahead"
    if quality.in_train:
        said += f"; {quality.in_train} of the rows are training rows, which flatters the score"
    return f"{said}."


def _score(quality: Quality, system: System) -> str:
    if quality.metric == "accuracy":
        return (
            f"{system.score:.0f} of 100 answers are right ({system.low:.0f} to {system.high:.0f})"
        )
    decimals = 2 if quality.metric in IN_UNITS else 1
    low, high = f"{system.low:.{decimals}f}", f"{system.high:.{decimals}f}"
    return f"{title(quality.metric)} is {system.score:.{decimals}f} ({low} to {high})"


def _beside(quality: Quality, kind: Kind) -> str:
    system = quality.of(kind)
    assert system is not None
    assert system.ahead is not None
    called = system.name if kind == "demonstrations" else f"the {system.name}"
    by = abs(system.ahead.value)
    size = f"{by:.0f} points" if quality.percent else f"{by:.2f}"
    if system.ahead.low > 0:
        return f"{size} better than {called}"
    if system.ahead.high < 0:
        return f"{size} worse than {called}"
    return f"not clearly better or worse than {called}"
