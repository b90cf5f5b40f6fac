"""Regression: errors, and correlation with the gold numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.metrics.resample import Floats, check_rows, interval, weights_drawn


def regression(
    gold: Sequence[float],
    predicted: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Pearson's and Spearman's correlation in percent points (-100 to 100), RMSE and MAE.

    Spearman's is Pearson's of the ranks, equal numbers sharing their mean rank; a resample has
    ranks of its own. A correlation with what is constant counts as 0. Raises `UserError` if there
    are no rows, and `ValueError` if the lengths differ or a number is not finite.
    """
    check_rows(len(gold), len(predicted))
    truth, guess = np.array(gold, dtype=np.float64), np.array(predicted, dtype=np.float64)
    if not (np.isfinite(truth).all() and np.isfinite(guess).all()):
        raise ValueError("a number is not finite")
    once = np.ones((1, len(truth)))
    values = _agreement(truth, guess, once)[:, 0]  # (4,)
    samples = np.concatenate(
        [_agreement(truth, guess, draws) for draws in weights_drawn(once[0], seed, resamples)],
        axis=1,
    )  # (4, R)
    names = {"pearson": 2, "spearman": 2, "rmse": 4, "mae": 4}
    return {
        "rows": len(truth),
        **{
            name: round(float(value), decimals)
            for (name, decimals), value in zip(names.items(), values, strict=True)
        },
        "intervals": {
            name: interval(value, sample).bounds(decimals)
            for (name, decimals), value, sample in zip(names.items(), values, samples, strict=True)
        },
    }


def _agreement(gold: Floats, guess: Floats, draws: Floats) -> Floats:
    """Pearson, Spearman, RMSE and MAE, (4, R), of rows drawn so many times, (R, N)."""
    rows = draws.sum(axis=1)
    errors = gold - guess
    return np.stack(
        [
            100 * _correlation(gold, guess, draws),
            100 * _correlation(_ranks(gold, draws), _ranks(guess, draws), draws),
            np.sqrt(draws @ errors**2 / rows),
            draws @ np.abs(errors) / rows,
        ]
    )


def _correlation(x: Floats, y: Floats, draws: Floats) -> Floats:
    """Pearson's correlation, (R,), of x and y, (N,) or (R, N); 0 where one is constant."""
    products: Floats = draws * _standard(x, draws) * _standard(y, draws)
    return np.asarray(products.sum(axis=1))


def _standard(values: Floats, draws: Floats) -> Floats:
    """Values less their mean and of length one, (R, N), as they are drawn; 0 if constant."""
    mean = (draws * values).sum(axis=1, keepdims=True) / draws.sum(axis=1, keepdims=True)
    centred = values - mean
    length, whole = (
        np.sqrt((draws * each**2).sum(axis=1, keepdims=True)) for each in (centred, values)
    )
    # what rounding leaves of a constant is that far below it
    varies = length > 1e-12 * whole
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=varies))


def _ranks(values: Floats, draws: Floats) -> Floats:
    """Ranks from 1, (R, N), of the drawn values; equal ones share their mean rank."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    sizes = np.add.reduceat(draws[:, order], starts, axis=1)  # (R, groups)
    ranks: Floats = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return ranks[:, group]
