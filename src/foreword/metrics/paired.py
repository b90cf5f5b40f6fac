"""Two systems on the same rows: which one is better, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreword.metrics.resample import (
    Interval,
    check_rows,
    interval,
    resampled_sums,
)


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two systems answers right, and how likely so uneven a split is.

    ``p`` is the two-sided probability of a split at least as uneven where both are equally good.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Compare which rows two systems answer right (McNemar 1947), by the exact binomial test.

    Raises `UserError` if there are no rows, and `ValueError` if the lengths differ.
    """
    from scipy.stats import binomtest

    check_rows(len(first), len(second))
    pairs = list(zip(first, second, strict=True))
    ahead = sum(a and not b for a, b in pairs)
    behind = sum(b and not a for a, b in pairs)
    p = float(binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
    return McNemar(ahead, behind, p)


def paired_difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0, resamples: int = 1000
) -> Interval:
    """Mean of ``first`` less that of ``second``, with a 95% interval: rows are drawn in pairs.

    Raises `UserError` if there are no rows, and `ValueError` if the lengths differ.
    """
    check_rows(len(first), len(second))
    gains = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)  # (N,)
    sums = resampled_sums(gains[:, None], np.ones(len(gains)), seed, resamples)
    return interval(float(gains.mean()), sums[:, 0] / len(gains))


def difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0, resamples: int = 1000
) -> Interval:
    """Mean of ``first`` less that of ``second``, each on rows of its own, with a 95% interval.

    Raises `UserError` if there are no rows.
    """
    means = []
    for turn, values in enumerate((first, second)):
        check_rows(len(values))
        table = np.asarray(values, dtype=np.float64)[:, None]
        sums = resampled_sums(table, np.ones(len(values)), seed + turn, resamples)
        means.append((float(table.mean()), sums[:, 0] / len(values)))
    (one, ones), (two, twos) = means
    return interval(one - two, ones - twos)
