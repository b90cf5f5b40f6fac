"""Rows that belong to no label, told apart by how sure the answers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.metrics.certainty import auroc
from foreword.metrics.resample import Floats, check_rows, interval, weights_drawn

KEPT = 0.95
"""The share of right answers that a fitted threshold keeps (Hendrycks and Gimpel 2017)."""

WORK = 2e7
"""Rows times resamples that the interval of AUROC may take: a second or so."""


def fit_threshold(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """Return the highest probability that ``KEPT`` of the right answers reach; 0 where none is.

    >>> fit_threshold([0.2, 0.6, 0.7, 0.8], [False, True, True, True])
    0.6
    """
    sure = sorted(p for p, known in zip(probabilities, right, strict=True) if known)
    return float(sure[int(len(sure) * (1 - KEPT))]) if sure else 0.0


def abstaining(
    probabilities: Sequence[float],
    right: Sequence[bool],
    threshold: float,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Coverage and the accuracy of what is answered, in percent points, at a threshold.

    `coverage` is the share of rows whose answer reaches it, `answered_accuracy` how many of these
    are right. Raises `UserError` if there are no rows.
    """
    check_rows(len(probabilities), len(right))
    given = np.array(probabilities) >= threshold
    table = np.stack([given, given & np.array(right, bool)], 1).astype(float)  # (N, 2)
    once = np.ones(len(table))

    def scores(sums: Floats) -> tuple[Floats, Floats]:
        told = sums[..., 0]
        share = np.divide(sums[..., 1], told, out=np.zeros_like(told), where=told > 0)
        return 100 * told / len(table), 100 * share

    drawn = np.concatenate([draws @ table for draws in weights_drawn(once, seed, resamples)])
    values, samples = scores(table.sum(0)), scores(drawn)
    return _scored(("coverage", "answered_accuracy"), values, samples)


def apart(
    known: Sequence[float],
    unknown: Sequence[float],
    threshold: float,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """AUROC of known against unknown rows, and the share of unknown rows that are answered.

    Both in percent points; `auroc` is scikit-learn's, of the answers' probabilities. Known and
    unknown rows are resampled apart. Raises `UserError` if there are none of one kind.
    """
    from sklearn.metrics import roc_auc_score

    check_rows(len(known))
    check_rows(len(unknown))
    chances = np.concatenate([known, unknown])
    gold = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    fewer = max(50, min(resamples, int(WORK / len(chances))))
    draws = np.hstack(
        [
            np.concatenate(list(weights_drawn(np.ones(count), seed + turn, min(fewer, resamples))))
            for turn, count in enumerate((len(known), len(unknown)))
        ]
    )
    areas = 100 * auroc(gold[:, None], chances[:, None], draws)
    taken = (np.array(unknown) >= threshold).astype(float)
    accepted = 100 * draws[:, len(known) :] @ taken / len(unknown)
    values = 100 * float(roc_auc_score(gold, chances)), 100 * float(taken.mean())
    return _scored(("auroc", "false_acceptance"), values, (areas, accepted))


def _scored(
    names: Sequence[str], values: Sequence[Any], samples: Sequence[Floats]
) -> dict[str, Any]:
    found = zip(names, values, samples, strict=True)
    each = [(name, float(value), interval(float(value), drawn)) for name, value, drawn in found]
    return {
        **{name: round(value, 2) for name, value, _ in each},
        "intervals": {name: own.bounds() for name, _, own in each},
    }
