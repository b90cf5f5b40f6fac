"""Intervals behave as a bootstrap must."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import LABELS, labelled, written

from foreword.errors import UserError
from foreword.metrics.classification import classification
from foreword.metrics.generation import generation
from foreword.metrics.resample import bootstrap, interval


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_bootstrap_holds_the_mean_and_stays_in_range(per_row: list[float], seed: int) -> None:
    interval = bootstrap(per_row, seed, 200)
    assert interval.value == pytest.approx(100 * math.fsum(per_row) / len(per_row))
    assert interval.low <= interval.value <= interval.high
    assert 100 * min(per_row) - 1e-9 <= interval.low
    assert interval.high <= 100 * max(per_row) + 1e-9


def test_bootstrap_is_near_the_normal_approximation() -> None:
    interval = bootstrap([1.0] * 160 + [0.0] * 40, seed=0, resamples=5000)
    half = 100 * 1.96 * math.sqrt(0.8 * 0.2 / 200)
    assert interval.value == pytest.approx(80)
    assert interval.low == pytest.approx(80 - half, abs=2)
    assert interval.high == pytest.approx(80 + half, abs=2)


def test_bootstrap_covers_the_true_rate() -> None:
    """Of 200 samples of Bernoulli(0.8), about 95% give an interval that holds 0.8."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        interval = bootstrap((rng.random(200) < 0.8).astype(float).tolist(), seed, 300)
        held += interval.low <= 80 <= interval.high
    assert 178 <= held < 200


def test_many_rows_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    per_row = np.random.default_rng(0).random(50).tolist()
    whole = bootstrap(per_row, 0, 100)
    monkeypatch.setattr("foreword.metrics.resample._CHUNK", 350)
    assert bootstrap(per_row, 0, 100) == whole


def test_bootstrap_draws_a_thousand_resamples_from_seed_0() -> None:
    rows = np.random.default_rng(0).random(50).tolist()
    assert bootstrap(rows) == bootstrap(rows, 0, 1000) != bootstrap(rows, 1, 1000)


def test_bootstrap_of_no_rows() -> None:
    with pytest.raises(UserError, match="no rows"):
        bootstrap([])


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_intervals_hold_the_value_repeat_by_seed_and_narrow_with_rows(kind: str) -> None:
    def score(rows: int, seed: int) -> dict[str, Any]:
        if kind == "classification":
            return classification(*labelled(rows), LABELS, seed=seed, resamples=300)
        return generation(*written(rows), seed=seed, resamples=300)

    few, many = score(40, 0), score(400, 0)
    assert score(40, 0) == few
    assert score(40, 1)["intervals"] != few["intervals"]
    for name, (low, high) in few["intervals"].items():
        assert low <= few[name] <= high
        narrow = many["intervals"][name]
        assert narrow[0] <= many[name] <= narrow[1]
        assert 0 < narrow[1] - narrow[0] < 0.7 * (high - low)


def test_an_interval_reaches_to_its_value() -> None:
    above, below = interval(5, np.full(10, 6.0)), interval(5, np.full(10, 4.0))
    assert (above.low, above.high) == (5, 6)
    assert (below.low, below.high) == (4, 5)
