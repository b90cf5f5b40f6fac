"""Certainty: what probabilities of labels tell beyond the label that is the likeliest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, hstack

from foreword.metrics.classification import counts_of_labels, mcc
from foreword.metrics.resample import (
    Floats,
    check_rows,
    interval,
    resampled_sums,
    weights_drawn,
)

BINS = 15
WORK = 5e7
"""Rows times labels times resamples that AUROC's interval may take: a second or so."""


def certainty(
    gold: Sequence[str],
    probabilities: Sequence[Mapping[str, float]],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Matthews' correlation, AUROC and the expected calibration error, in percent points.

    `mcc` (-100 to 100) is that of the likeliest labels. `auroc` is the mean over the labels that
    occur of the area under the curve that parts a label from all others (one against the rest; of
    two labels, the area itself); it is left out where the rows have one label alone. `ece` is the
    mean distance, over 15 bins of equal width, of the likeliest label's probability and how often
    it is right, weighted by the rows of the bin (Guo et al. 2017, arXiv:1706.04599). Intervals of
    `auroc` take fewer resamples, 50 at least, where there are many rows and labels. Raises
    `UserError` if there are no rows, and `ValueError` if the lengths differ.
    """
    check_rows(len(gold), len(probabilities))
    index = {label: number for number, label in enumerate(labels)}
    truth = np.array([index[label] for label in gold])  # (N,)
    chances = np.array([[row[label] for label in labels] for row in probabilities])  # (N, K)
    guess, surest, once = chances.argmax(1), chances.max(1), np.ones(len(truth))
    bins = np.clip(np.ceil(surest * BINS).astype(int) - 1, 0, BINS - 1)  # each closed on the right
    gaps = np.eye(BINS)[bins] * (surest - (truth == guess))[:, None]
    counts = counts_of_labels(truth, guess, len(labels))
    table = hstack([counts, gaps]).tocsr()  # (N, 3K + 15), four numbers a row

    def two(sums: Floats) -> tuple[Floats, Floats]:  # (..., 3K + 15) -> (...), (...)
        own = np.split(sums, [len(labels), 2 * len(labels), 3 * len(labels)], axis=-1)
        return mcc(own[0], own[1], own[2]), np.abs(own[3]).sum(-1) / len(truth)

    values = dict(zip(("mcc", "ece"), two(table.sum(0)), strict=True))
    samples = dict(
        zip(
            ("mcc", "ece"),
            two(resampled_sums(table, once, seed, resamples)),
            strict=True,
        )
    )
    if len(set(gold)) > 1:
        own = truth[:, None] == np.arange(len(labels))  # (N, K)
        fewer = max(50, min(resamples, int(WORK / chances.size)))
        values["auroc"] = auroc(own, chances, once[None])[0]
        samples["auroc"] = np.concatenate(
            [
                auroc(own, chances, draws)
                for draws in weights_drawn(once, seed, min(fewer, resamples))
            ]
        )
    return {
        **{name: round(100 * float(value), 2) for name, value in values.items()},
        "intervals": {
            name: interval(100 * float(values[name]), 100 * sample).bounds()
            for name, sample in samples.items()
        },
    }


def auroc(gold: NDArray[Any], scores: Floats, draws: Floats) -> Floats:
    """Mean area under the ROC curves, 0 to 1, of labels in rows drawn so many times: (R,).

    ``gold`` (N, K) is 1 where a row has a label, ``draws`` is (R, N). A label that all or none of
    the rows have does not count; where none is left the area is a half.
    """
    drawn = np.ascontiguousarray(draws.T)  # (N, R): what is added up of a row stands together
    areas = np.stack(
        [_area(gold[:, k] > 0, scores[:, k], drawn) for k in range(gold.shape[1])]
    )  # (K, R)
    there = ~np.isnan(areas)
    total = np.where(there, areas, 0.0).sum(0)
    return np.asarray(np.where(there.any(0), total / np.maximum(there.sum(0), 1), 0.5))


def _area(gold: NDArray[np.bool_], scores: Floats, drawn: Floats) -> Floats:
    """Area under one curve, (R,), equal scores counting half; NaN where one side is empty.

    Rows are counted at the scores of those that have the label, and between these.
    """
    held = np.unique(scores[gold])
    place = np.searchsorted(held, scores) + np.searchsorted(held, scores, "right")  # at one: odd
    count, rows = 2 * len(held) + 1, len(scores)
    summed = csc_array(
        (np.ones(rows), place + count * gold, np.arange(rows + 1)), shape=(2 * count, rows)
    )
    below, above = np.split(summed @ drawn, 2)  # (places, R) of the others, and of the label's
    won = (above * (np.cumsum(below, axis=0) - below / 2)).sum(0)
    pairs = above.sum(0) * below.sum(0)
    return np.asarray(np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
