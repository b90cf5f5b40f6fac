"""Many labels a row: F1 over all of them, rows that are wholly right, and each label's AUROC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foreword.metrics.certainty import auroc
from foreword.metrics.classification import macro_f1
from foreword.metrics.resample import Floats, check_rows, interval, resampled_sums


def multilabel(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    labels: Sequence[str],
    *,
    probabilities: Sequence[Mapping[str, float]] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Micro and macro F1 and exact match, as scikit-learn counts them; AUROC a label.

    `micro_f1` counts all pairs of row and label alike; `macro_f1` is the mean F1 of the labels that
    occur in `gold`; `exact_match` is the share of rows whose set of labels is right. `per_class`
    has each label's `auroc` where `probabilities` are given and both kinds of rows occur. Raises
    `UserError` if there are no rows, and `ValueError` if the lengths differ.
    """
    check_rows(len(gold), len(predicted))
    truth, guess = _table(gold, labels), _table(predicted, labels)  # (N, K) each
    exact = (truth == guess).all(1, keepdims=True)
    table = np.hstack([truth * guess, truth, guess, exact])  # (N, 3K + 1)
    values = _scores(table.sum(0), len(gold))
    samples = _scores(resampled_sums(table, np.ones(len(gold)), seed, resamples), len(gold))
    sums = table.sum(0)
    per_class: dict[str, dict[str, float]] = {}
    for number, label in enumerate(labels):
        right, own, given = (float(sums[number + part * len(labels)]) for part in range(3))
        per_class[label] = {
            "precision": round(100 * right / max(given, 1), 2),
            "recall": round(100 * right / max(own, 1), 2),
            "f1": round(200 * right / max(own + given, 1), 2),
            "support": int(own),
        }
        if probabilities is not None and 0 < own < len(gold):
            chances = np.array([[row[label]] for row in probabilities])
            area = auroc(truth[:, [number]], chances, np.ones((1, len(gold))))
            per_class[label]["auroc"] = round(100 * float(area[0]), 2)
    return {
        "rows": len(gold),
        **{name: round(100 * float(value), 2) for name, value in values.items()},
        "intervals": {
            name: interval(100 * float(value), 100 * samples[name]).bounds()
            for name, value in values.items()
        },
        "per_class": per_class,
    }


def _table(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> Floats:
    return np.array([[float(label in row) for label in labels] for row in rows])


def _scores(sums: Floats, rows: int) -> dict[str, Floats]:
    """Micro F1, macro F1 and exact match, 0 to 1, of (..., 3K + 1)."""
    hits, support, claimed = np.split(sums[..., :-1], 3, axis=-1)
    return {
        "micro_f1": 2 * hits.sum(-1) / np.maximum(support.sum(-1) + claimed.sum(-1), 1),
        "macro_f1": macro_f1(hits, support, claimed),
        "exact_match": sums[..., -1] / rows,
    }
