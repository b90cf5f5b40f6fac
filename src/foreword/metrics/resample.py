"""Bootstrap intervals: rows drawn with replacement, as weights of the rows' statistics.

Every score is a function of *sums over rows*: counts of right answers, of n-gram matches, of words.
So a resample (Efron 1979) needs no text again: the rows' statistics are weighted by how often each
row was drawn, all resamples in one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreword.errors import UserError

Floats = NDArray[np.float64]

_CHUNK = 4_000_000  # draws held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A score and its 95% interval."""

    value: float
    low: float
    high: float

    def bounds(self, decimals: int = 2) -> list[float]:
        """Low and high, rounded."""
        return [round(self.low, decimals), round(self.high, decimals)]


def bootstrap(per_row: Sequence[float], seed: int = 0, resamples: int = 1000) -> Interval:
    """Interval of a mean over rows.

    `per_row` holds a number from 0 to 1 for each row (right or wrong, an F measure); the interval
    is in percent points. Raises `UserError` if there are no rows.
    """
    check_rows(len(per_row))
    table = np.asarray(per_row, dtype=np.float64)[:, None]  # (N, 1)
    sums = resampled_sums(table, np.ones(len(per_row)), seed, resamples)  # (R, 1)
    return interval(100 * table.mean(), 100 * sums[:, 0] / len(per_row))


def proportion(right: int, rows: int) -> Interval:
    """Interval, in percent points, of a share of rows of which no more is known than their count.

    That is Wilson's (1927), which also holds for few rows, and for none or all that are right.
    """
    from scipy.stats import binomtest

    check_rows(rows)
    bounds = binomtest(right, rows).proportion_ci(method="wilson")
    return Interval(100 * right / rows, 100 * float(bounds.low), 100 * float(bounds.high))


def check_rows(rows: int, others: int | None = None) -> None:
    """Refuse lengths that differ (`ValueError`) and no rows at all (`UserError`)."""
    if others is not None and rows != others:
        raise ValueError(f"lengths differ: {rows} and {others}")
    if rows == 0:
        raise UserError("there are no rows to score: give data with at least one row")


def resampled_sums(table: Floats, counts: Floats, seed: int, resamples: int) -> Floats:
    """Column sums of `resamples` bootstrap samples, (R, S).

    `table` (M, S) holds the statistics of M kinds of row, and `counts` (M,) how many rows are of
    each kind: drawing rows with replacement draws the kinds from a multinomial distribution.
    """
    return np.concatenate([draws @ table for draws in weights_drawn(counts, seed, resamples)])


def weights_drawn(counts: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    """Yield how many rows of each kind the resamples have, (size, M), some resamples at a time."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    rows = int(counts.sum())
    step = max(1, _CHUNK // len(counts))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield rng.multinomial(rows, counts / rows, size=size).astype(np.float64)


def interval(value: float, samples: Floats) -> Interval:
    """Percentile interval of the samples, widened to the value where resampling is biased."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))
