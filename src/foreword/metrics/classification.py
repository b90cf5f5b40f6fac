"""Labels: accuracy, F1 and what is taken for what, as scikit-learn counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import eye_array, hstack

from foreword.metrics.resample import Floats, check_rows, interval, resampled_sums


def classification(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Accuracy, macro F1, per-class scores and the confusion matrix, as scikit-learn counts them.

    `macro_f1` is the mean F1 of the labels that occur in `gold` (scikit-learn with `labels=` those
    and `zero_division=0`: a label never predicted counts as 0, one without gold rows does not
    count); a resample's mean is over the labels in the resample. `per_class` and `confusion` (rows
    gold, columns predicted) have every label, in the order of `labels`. Raises `UserError` if there
    are no rows, and `ValueError` if the lengths differ or a label is unknown.
    """
    from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

    check_rows(len(gold), len(predicted))
    index = {label: number for number, label in enumerate(labels)}
    if len(index) != len(labels):
        raise ValueError(f"labels repeat: {list(labels)}")
    if unknown := {*gold, *predicted} - index.keys():
        raise ValueError(f"not among the labels: {sorted(unknown)}")
    every = list(range(len(labels)))
    truth, guess = [index[label] for label in gold], [index[label] for label in predicted]
    confusion = confusion_matrix(truth, guess, labels=every)  # (K, K)
    accuracy = 100 * float(np.trace(confusion)) / len(gold)
    occurring = sorted(set(truth))
    macro = 100 * float(f1_score(truth, guess, labels=occurring, average="macro", zero_division=0))
    scores = precision_recall_fscore_support(truth, guess, labels=every, zero_division=0)
    right, f1 = _resampled_confusion(confusion, seed, resamples)
    return {
        "rows": len(gold),
        "accuracy": round(accuracy, 2),
        "macro_f1": round(macro, 2),
        "intervals": {
            "accuracy": interval(accuracy, 100 * right).bounds(),
            "macro_f1": interval(macro, 100 * f1).bounds(),
        },
        "per_class": {
            label: {
                "precision": round(100 * float(precision), 2),
                "recall": round(100 * float(recall), 2),
                "f1": round(100 * float(f), 2),
                "support": int(support),
            }
            for label, precision, recall, f, support in zip(labels, *scores, strict=True)
        },
        "confusion": {"labels": list(labels), "matrix": confusion.tolist()},
    }


def _resampled_confusion(
    confusion: NDArray[np.int64], seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Accuracy and macro F1, (R,) each and 0 to 1, of bootstrap samples of a confusion matrix."""
    hits, support, claimed = resampled_label_counts(confusion, seed, resamples)
    return hits.sum(axis=1) / confusion.sum(), macro_f1(hits, support, claimed)


def resampled_label_counts(
    confusion: NDArray[Any], seed: int, resamples: int
) -> tuple[Floats, Floats, Floats]:
    """Hits, support and claims, (R, K) each, of bootstrap samples of a matrix (K, K)."""
    gold, guess = np.nonzero(confusion)  # the M cells that have rows
    table = counts_of_labels(gold, guess, len(confusion))  # (M, 3K)
    sums = resampled_sums(table, confusion[gold, guess].astype(np.float64), seed, resamples)
    hits, support, claimed = np.split(sums, 3, axis=1)
    return hits, support, claimed


def counts_of_labels(gold: NDArray[Any], guess: NDArray[Any], labels: int) -> Any:
    """Return the hits, support and claims of each row, a sparse array: (rows, 3 * labels)."""
    one_hot = eye_array(labels, format="csr")
    hits = one_hot[gold].multiply((gold == guess)[:, None])
    return hstack([hits, one_hot[gold], one_hot[guess]]).tocsr()


def macro_f1(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    """Mean F1, 0 to 1, of the labels that have gold rows: (..., K) each -> (...).

    ``hits`` counts the rows that are rightly given a label, ``support`` those that have it, and
    ``claimed`` those that are given it.
    """
    f1 = 2 * hits / np.maximum(support + claimed, 1)
    present = support > 0
    return np.asarray((f1 * present).sum(-1) / np.maximum(present.sum(-1), 1))


def mcc(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    """Matthews' correlation, -1 to 1, of several classes: (..., K) each -> (...).

    Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient";
    0 where all rows have, or are given, one label.
    """
    rows = support.sum(-1)
    covariance = hits.sum(-1) * rows - (support * claimed).sum(-1)
    gold, guess = rows**2 - (support**2).sum(-1), rows**2 - (claimed**2).sum(-1)
    length = np.sqrt(gold * guess)
    return np.asarray(np.divide(covariance, length, out=np.zeros_like(length), where=length > 0))


def label_counts(confusion: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, support and claims of each label, (..., K) each, of (..., gold K, predicted K)."""
    return np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1), confusion.sum(-2)
