"""Several prompts beside each other, and which of them carries over to which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.paired import McNemar, mcnemar, paired_difference
from foreword.metrics.resample import Interval
from foreword.report.left_out import LeftOut
from foreword.report.row_scores import row_scores
from foreword.report.subject import Subject


@dataclass(frozen=True)
class Cell:
    """A prompt on a data set: its score with a 95% interval."""

    metric: str
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two prompts on the same rows: how far the first is ahead, row by row.

    ``by_row`` names the score of a row, ``mcnemar`` is of answers that are right or wrong.
    """

    data: str
    first: str
    second: str
    by_row: str
    ahead: Interval
    mcnemar: McNemar | None


@dataclass(frozen=True)
class SideBySide:
    """Prompts on data sets: ``cells`` by prompt and data, with the reason where one has no score.

    ``untouched`` are the scores of the model without a prompt.
    """

    prompts: Sequence[str]
    data: Sequence[str]
    cells: Mapping[tuple[str, str], Cell | LeftOut]
    pairs: Sequence[Pair]


def compare_subjects(subjects: Sequence[Subject], sets: Mapping[str, Sequence[Row]]) -> SideBySide:
    """Score every prompt on every data set that it can be scored on; compare them in pairs."""
    cells: dict[tuple[str, str], Cell | LeftOut] = {}
    pairs = []
    for data, rows in sets.items():
        found = {}
        for each in subjects:
            try:
                each.bound.check(rows, answers=True)
            except UserError as error:
                cells[each.name, data] = LeftOut(str(error))
                continue
            own = each.tuned if data == each.data else each.evaluate(rows, f"{each.name}, {data}")
            low, high = own.interval
            cells[each.name, data] = Cell(own.headline, own.score, low, high)
            found[each.name] = own
        for one, two in combinations(found, 2):
            if found[one].headline != found[two].headline:
                continue
            scored, other = (row_scores(found[name].rows) for name in (one, two))
            ahead = paired_difference(scored.values, other.values, subjects[0].seed)
            test = None
            if scored.binary:
                rights = ([bool(v) for v in own.values] for own in (scored, other))
                test = mcnemar(*rights)
            pairs.append(Pair(data, one, two, scored.name, ahead, test))
    return SideBySide([each.name for each in subjects], list(sets), cells, pairs)
