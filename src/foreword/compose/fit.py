"""Fitting the weights of an ensemble to dev rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from foreword.compose.ensemble import fusion_of
from foreword.compose.fusion import Poll
from foreword.compose.together import check_together, check_weights, equal_weights
from foreword.data.folder import DEV
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.terminal import usual_reporter

STEPS = 20
"""Steps from 0 to 1 in which weights are tried, if that gives not too many candidates."""


@dataclass(frozen=True)
class FittedWeights:
    """Weights, their score on dev rows, and the score of each prompt alone."""

    weights: tuple[float, ...]
    score: float
    alone: tuple[float, ...]
    metric: str
    rows: int

    @property
    def dev(self) -> dict[str, Any]:
        """The score as it is written to a prompt file."""
        return {self.metric: self.score, "rows": self.rows}


def fit(
    prompts: Sequence[Prompt],
    dev: Rows,
    *,
    report: Reporter | None = None,
) -> FittedWeights:
    """Try weights on dev rows and return the best.

    Candidates are each prompt alone, equal weights, and the points of the simplex lattice in
    steps of 1/20, or larger ones if that would be too many. The best has the highest headline
    score (accuracy, Pearson; for completions the mean log-likelihood of a token). Ties go to the
    highest likelihood of the right answers (for scores the smallest squared error), and then to the
    fewest members. On these rows it never scores below the best prompt alone; on others it may.
    """
    report = usual_reporter() if report is None else report
    rows, count = _read_dev(dev, prompts), len(prompts)
    tried = list(dict.fromkeys(candidates(count, fusion_of(prompts[0].task).most)))
    scores, ties = _score_candidates(prompts, tried, rows, report)
    # rounded, so that rounding errors decide nothing
    order = [
        (-s, -round(t, 6), sum(w > 0 for w in own))
        for s, t, own in zip(scores, ties, tried, strict=True)
    ]
    best = order.index(min(order))
    metric = fusion_of(prompts[0].task).metric
    return FittedWeights(tried[best], scores[best], tuple(scores[:count]), metric, len(rows))


def score_weights(
    prompts: Sequence[Prompt],
    weights: Sequence[float],
    dev: Rows,
    *,
    report: Reporter | None = None,
) -> FittedWeights:
    """Score given weights on dev rows, and each prompt alone."""
    report = usual_reporter() if report is None else report
    rows = _read_dev(dev, prompts)
    used = check_weights(weights, len(prompts))
    scores, _ = _score_candidates(prompts, [*_alone(len(prompts)), used], rows, report)
    metric = fusion_of(prompts[0].task).metric
    return FittedWeights(used, scores[-1], tuple(scores[:-1]), metric, len(rows))


def candidates(count: int, most: int) -> Iterator[tuple[float, ...]]:
    """Yield the weights to try: each prompt alone, all of them alike, and a lattice of mixtures.

    >>> list(candidates(2, 6))
    [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    yield from _alone(count)
    yield equal_weights(count)
    steps = STEPS
    while steps > 1 and comb(steps + count - 1, count - 1) > most - count - 1:
        steps -= 1
    for bars in combinations(range(steps + count - 1), count - 1):  # stars and bars
        ends = (-1, *bars, steps + count - 1)
        yield tuple((ends[n + 1] - ends[n] - 1) / steps for n in range(count))


def _alone(count: int) -> list[tuple[float, ...]]:
    return [tuple(float(n == own) for n in range(count)) for own in range(count)]


def _read_dev(dev: Rows, prompts: Sequence[Prompt]) -> list[Row]:
    rows = as_rows(dev, split=DEV, name="dev row", fields=prompts[0].bound.pair)
    if not rows:
        raise UserError("there are no dev rows; give one or more")
    return rows


def _score_candidates(
    prompts: Sequence[Prompt],
    tried: Sequence[tuple[float, ...]],
    rows: Sequence[Row],
    report: Reporter,
) -> tuple[list[float], list[float]]:
    check_together(prompts)
    fusion = fusion_of(prompts[0].task)
    fusion.check(prompts)
    with report.bar("dev rows", len(rows)) as progress:
        scores, ties = fusion.judge(Poll(prompts, rows, progress), np.array(tried))
    return scores.tolist(), ties.tolist()
