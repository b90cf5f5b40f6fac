"""Paired comparisons, against the binomial distribution summed by hand and plain resampling."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest

from foreword.errors import UserError
from foreword.metrics.paired import difference, mcnemar, paired_difference


def two_sided(ahead: int, behind: int) -> float:
    """The probability of all splits that are no likelier than this one."""
    n = ahead + behind
    chances = [comb(n, k) / 2**n for k in range(n + 1)]
    return sum(c for c in chances if c <= chances[ahead] * (1 + 1e-9))


@pytest.mark.parametrize(("ahead", "behind", "both"), [(9, 1, 5), (3, 3, 0), (1, 7, 2), (0, 4, 9)])
def test_mcnemar_is_the_exact_binomial_test(ahead: int, behind: int, both: int) -> None:
    first = [True] * ahead + [False] * behind + [True] * both + [False] * 4
    second = [False] * ahead + [True] * behind + [True] * both + [False] * 4
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (ahead, behind)
    assert found.p == pytest.approx(two_sided(ahead, behind))


def test_two_systems_that_never_differ_are_no_news() -> None:
    assert mcnemar([True, False], [True, False]).p == 1.0
    assert paired_difference([1.0, 0.0], [1.0, 0.0]).bounds() == [0.0, 0.0]


def test_a_paired_difference_is_that_of_the_means_with_the_pairs_drawn() -> None:
    rng = np.random.default_rng(0)
    second = rng.normal(size=200)
    first = second + 0.1 + 0.01 * rng.normal(size=200)  # always a little ahead
    found = paired_difference(first.tolist(), second.tolist())
    assert found.value == pytest.approx((first - second).mean())
    assert found.low > 0.09  # in pairs the small lead is certain ...
    apart = difference(first.tolist(), second.tolist())
    assert apart.low < 0 < apart.high  # ... and apart it is not
    error = math.sqrt(first.var() / len(first) + second.var() / len(second))
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    draws = rng.integers(0, 200, size=(4000, 200))
    means = (first - second)[draws].mean(1)
    assert found.bounds(4) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=5e-4)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match="no rows"):
        mcnemar([], [])
    with pytest.raises(ValueError, match="lengths differ"):
        paired_difference([1.0], [1.0, 2.0])
