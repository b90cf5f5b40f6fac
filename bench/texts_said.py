"""What an answer says: values that are right and stray ones, how long it is, whether it refuses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from foreword.evaluation.evaluation import Evaluation
from foreword.metrics.resample import interval, resampled_sums

_NUMBER = r"\d+(?:[.:,/-]\d+)*"
_NAME = r"[A-Z][\w'’&]*(?:[ -](?:of |the |and |de |& )?[A-Z][\w'’&]*)*"
_VALUES = re.compile(rf"[\w.+-]+@[\w.-]+\w|{_NUMBER}|(?<![.!?] )(?<![.!?])\b{_NAME}")
_REFUSALS = re.compile(
    r"\bas an ai\b|\bi(?:'m| am) (?:sorry, but|unable|not able)|\bi (?:cannot|can't|can not) "
    r"(?:help|assist|provide|answer|access)|\bi (?:don't|do not) have (?:access|any|the|that|inf)",
    re.IGNORECASE,
)


def values_of(text: str) -> set[str]:
    """Return the values that a text names: numbers, times, addresses, and names inside sentences.

    >>> sorted(values_of("We meet at 5:30 in the Capital One Arena, for 20 dollars. It is open."))
    ['20', '5:30', 'capital one arena']
    """
    inside = re.sub(r"^\W*\w+", lambda first: first[0].lower(), text)
    return {found[0].lower() for found in _VALUES.finditer(inside) if found[0] not in ("I", "I'm")}


def is_refusal(text: str) -> bool:
    """Whether an assistant declines to answer.

    >>> is_refusal("I'm sorry, but I can't do that."), is_refusal("I'm sorry! A new one leaves.")
    (True, False)
    """
    return _REFUSALS.search(text) is not None


def what_is_said(found: Evaluation) -> dict[str, Any]:
    """Return how answers compare with references, in percent, with 95% intervals over rows."""
    counts = []
    for each in found.rows:
        references = each.gold if isinstance(each.gold, list) else [each.gold]
        due, own = values_of(references[0]), values_of(each.answer)
        known = " ".join([each.text, *references]).lower()
        stray = sum(value not in known for value in own)
        words = len(each.answer.split()), len(references[0].split())
        counts.append([len(due & own), len(due), stray, len(own), *words, is_refusal(each.answer)])
    table = np.array(counts, dtype=np.float64)
    table = np.column_stack([table, np.ones(len(table))])
    drawn = resampled_sums(table, np.ones(len(table)), 0, 1000)
    whole, said = table.sum(0), {}
    for place, name in enumerate(("values", "stray", "words", "refused")):
        top, below = 2 * place, 2 * place + 1
        ratio = 100 * whole[top] / max(whole[below], 1)
        samples = 100 * drawn[:, top] / np.maximum(drawn[:, below], 1)
        low, high = interval(ratio, samples).bounds()
        said[name] = [round(float(ratio), 1), low, high]
    return said
