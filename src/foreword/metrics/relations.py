"""Relations: the official score of SemEval-2010 Task 8, for labels such as Cause-Effect(e1,e2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.metrics.classification import label_counts, macro_f1, resampled_label_counts
from foreword.metrics.resample import Floats, check_rows, interval

_DIRECTED = re.compile(r"(?P<name>.+)\((?P<first>\w+),(?P<second>\w+)\)")


def split_direction(label: str) -> tuple[str, str]:
    """Return a label's relation, and its direction, empty where the name has none.

    >>> split_direction("Cause-Effect(e2,e1)"), split_direction("Other")
    (('Cause-Effect', 'e2,e1'), ('Other', ''))
    """
    found = _DIRECTED.fullmatch(label)
    return (label, "") if found is None else (found["name"], f"{found['first']},{found['second']}")


def official_f1(
    hits: Floats, support: Floats, claimed: Floats, labels: Sequence[str], none: str
) -> Floats:
    """Macro F1, 0 to 1, over relations but ``none``, of each label's counts: (..., K) -> (...).

    Hendrickx et al. 2010, the scorer's "(9+1)-way evaluation taking directionality into account":
    a relation is right with its direction alone, and one of the other direction counts against
    precision and recall. The mean is over the relations that occur in the gold labels.
    """
    names = sorted({split_direction(label)[0] for label in labels} - {none})
    own = np.array(
        [[split_direction(label)[0] == name for label in labels] for name in names], float
    )
    return macro_f1(hits @ own.T, support @ own.T, claimed @ own.T)


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
    value = 100 * float(official_f1(*label_counts(confusion), labels, none))
    sums = resampled_label_counts(confusion, seed, resamples)
    samples = 100 * official_f1(*sums, labels, none)
    return {
        "official_f1": round(value, 2),
        "intervals": {"official_f1": interval(value, samples).bounds()},
    }
