"""Relations: the official score of SemEval-2010 Task 8, for labels such as Cause-Effect(e1,e2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.metrics.resample import Floats, check_rows, interval, resampled_sums

_DIRECTED = re.compile(r"(?P<name>.+)\((?P<first>\w+),(?P<second>\w+)\)")


def split_direction(label: str) -> tuple[str, str]:
    """Return a label's relation, and its direction, empty where the name has none.

    >>> split_direction("Cause-Effect(e2,e1)"), split_direction("Other")
    (('Cause-Effect', 'e2,e1'), ('Other', ''))
    """
    found = _DIRECTED.fullmatch(label)
    return (label, "") if found is None else (found["name"], f"{found['first']},{found['second']}")


def official_f1(confusion: Floats, labels: Sequence[str], none: str) -> Floats:
    """Macro F1, 0 to 1, over relations but ``none``: (..., K, K) gold by predicted -> (...).

    Hendrickx et al. 2010, the scorer's "(9+1)-way evaluation taking directionality into account":
    a relation is right with its direction alone, and one of the other direction counts against
    precision and recall. The mean is over the relations that occur in the gold labels.
    """
    names = sorted({split_direction(label)[0] for label in labels} - {none})
    own = np.array(
        [[split_direction(label)[0] == name for label in labels] for name in names], float
    )
    right = np.diagonal(confusion, axis1=-2, axis2=-1) @ own.T  # (..., relations)
    support, claimed = confusion.sum(-1) @ own.T, confusion.sum(-2) @ own.T
    f1 = 2 * right / np.maximum(support + claimed, 1)
    present = support > 0
    return np.asarray((f1 * present).sum(-1) / np.maximum(present.sum(-1), 1))


def relations(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    none: str,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """The official macro F1 times 100, `official_f1`, with its interval.

    Raises `UserError` if there are no rows, and `ValueError` if the lengths differ.
    """
    check_rows(len(gold), len(predicted))
    index = {label: number for number, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)))
    for truth, guess in zip(gold, predicted, strict=True):
        confusion[index[truth], index[guess]] += 1
    kinds = np.nonzero(confusion)  # the M cells that have rows
    cells = np.eye(confusion.size)[np.ravel_multi_index(kinds, confusion.shape)]  # (M, K * K)
    sums = resampled_sums(cells, confusion[kinds], seed, resamples)
    value = 100 * float(official_f1(confusion, labels, none))
    samples = 100 * official_f1(sums.reshape(-1, *confusion.shape), labels, none)
    return {
        "official_f1": round(value, 2),
        "intervals": {"official_f1": interval(value, samples).bounds()},
    }
