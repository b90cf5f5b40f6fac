"""Scores of numbers agree with scipy and scikit-learn."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from foreword.errors import UserError
from foreword.metrics.regression import regression


def numbers(rows: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Gold numbers with many ties, as people give them, and noisy guesses."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 26, rows) / 5
    return gold.tolist(), (gold + rng.normal(0, 1, rows)).round(1).tolist()


def by_libraries(gold: Any, guess: Any) -> dict[str, float]:
    return {
        "pearson": 100 * stats.pearsonr(gold, guess).statistic,
        "spearman": 100 * stats.spearmanr(gold, guess).statistic,
        "rmse": sk.root_mean_squared_error(gold, guess),
        "mae": sk.mean_absolute_error(gold, guess),
    }


def test_regression_is_scipys_and_scikit_learns() -> None:
    gold, guess = numbers(200)
    scores = regression(gold, guess, resamples=50)
    assert scores["rows"] == 200
    for name, value in by_libraries(gold, guess).items():
        assert scores[name] == round(value, 2 if value > 5 else 4)
        low, high = scores["intervals"][name]
        assert low < scores[name] < high
    assert json.loads(json.dumps(scores)) == scores


def test_regression_intervals_are_those_of_resampled_rows() -> None:
    gold, guess = map(np.array, numbers(60, seed=1))
    rng = np.random.default_rng(0)
    drawn = [np.repeat(np.arange(60), rng.multinomial(60, [1 / 60] * 60)) for _ in range(300)]
    samples = [by_libraries(gold[rows], guess[rows]) for rows in drawn]
    found = regression(gold.tolist(), guess.tolist(), seed=0, resamples=300)["intervals"]
    for name, bounds in found.items():
        expected = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
        assert bounds == pytest.approx(expected.tolist(), abs=0.006 if name != "mae" else 6e-5)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_correlations_know_no_units(scale: float, offset: float) -> None:
    gold, guess = numbers(50)
    moved = regression(gold, [scale * g + offset for g in guess], resamples=5)
    assert moved["pearson"] == pytest.approx(
        regression(gold, guess, resamples=5)["pearson"], abs=0.02
    )


@pytest.mark.parametrize("constant", [0.0, 3.3, 1e9])
def test_a_constant_answer_correlates_with_nothing(constant: float) -> None:
    scores = regression([1.0, 2.0, 4.5], [constant] * 3)
    assert scores["pearson"] == scores["spearman"] == 0
    assert scores["intervals"]["pearson"] == [0, 0]
    assert regression([1.0], [2.0])["rmse"] == 1
    assert regression([1.0, 2.0, 3.0], [2.0, 2.0, 3.0])["mae"] == 0.3333


def test_a_perfect_and_a_turned_answer() -> None:
    gold, _ = numbers(30)
    scores = regression(gold, gold)
    assert (scores["pearson"], scores["spearman"], scores["rmse"]) == (100, 100, 0)
    assert regression(gold, [-g for g in gold])["spearman"] == -100


def test_regression_refuses_wrong_input() -> None:
    with pytest.raises(UserError, match="no rows"):
        regression([], [])
    with pytest.raises(ValueError, match="lengths differ"):
        regression([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        regression([1.0], [math.nan])
