"""One number a row: how good its answer is, so that two systems can be compared row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.evaluation.evaluation import Answered
from foreword.metrics.generation import rows_rouge


@dataclass(frozen=True)
class RowScores:
    """The scores of rows: what they are called, whether they are percent, and whether 0 or 100."""

    name: str
    values: Sequence[float]
    percent: bool = True
    binary: bool = False


def row_scores(rows: Sequence[Answered]) -> RowScores:
    """Score each answer: right or wrong, words in common with a text, or minus the error.

    Texts are scored by ROUGE-L over the best of their references, lists of tags by the share of
    words that are right, and numbers by minus their distance.
    """
    first = rows[0]
    if isinstance(first.answer, bool) or first.right is None:
        errors = [-abs(float(row.answer) - float(row.gold)) for row in rows]
        return RowScores("minus the error", errors, percent=False)
    if "text" in first.prediction:
        references = [[r.gold] if isinstance(r.gold, str) else list(r.gold) for r in rows]
        found = rows_rouge([str(row.answer) for row in rows], references)
        return RowScores("ROUGE-L of a row", [100 * each for each in found])
    if "tags" in first.prediction:
        return RowScores("right words of a row", [_share(row) for row in rows])
    return RowScores("right answers", [100.0 * bool(r.right) for r in rows], binary=True)


def _share(row: Answered) -> float:
    pairs = list(zip(row.answer, row.gold, strict=False))
    return 100.0 * sum(bool(a == b) for a, b in pairs) / max(1, len(row.gold))
