"""Tagging: accuracy of words, and in the BIO scheme F1 of spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.metrics.bio import is_bio, spans
from foreword.metrics.classification import classification, macro_f1
from foreword.metrics.resample import Floats, check_rows, interval, resampled_sums


def tagging(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Accuracy of words and macro F1 over tags; for BIO tags the spans' F1, precision and recall.

    A span is right where its type and both its ends are; `span_f1` counts all spans alike (micro),
    as conlleval and seqeval do. `per_class` is of the types of spans for BIO tags. Intervals are
    those of resampled sentences. Raises `UserError` if there are no rows, and `ValueError` if
    lengths differ or a tag is unknown.
    """
    check_rows(len(gold), len(predicted))
    for truth, guess in zip(gold, predicted, strict=True):
        check_rows(len(truth), len(guess))
    words = classification(
        [tag for row in gold for tag in row],
        [tag for row in predicted for tag in row],
        labels,
        seed=seed,
        resamples=1,
    )
    index = {label: number for number, label in enumerate(labels)}
    one_hot = np.eye(len(labels))
    tags = np.stack(
        [
            _counted(one_hot[[index[tag] for tag in truth]], one_hot[[index[tag] for tag in guess]])
            for truth, guess in zip(gold, predicted, strict=True)
        ]
    )  # (N, 3, K)
    values = _of_tags(tags.sum(0))
    once = np.ones(len(gold))
    sums = resampled_sums(tags.reshape(len(gold), -1), once, seed, resamples)
    samples = _of_tags(sums.reshape(-1, *tags.shape[1:]))
    scores = {
        "rows": len(gold),
        "words": words["rows"],
        "per_class": words["per_class"],
        "confusion": words["confusion"],
    }
    if is_bio(labels):
        kinds = sorted({label[2:] for label in labels if label != "O"})
        own = np.stack([_spans(*pair, kinds) for pair in zip(gold, predicted, strict=True)])
        scores["per_class"] = _per_kind(own.sum(0), kinds)
        values |= span_scores(own.sum((0, 2)))
        drawn = resampled_sums(own.sum(2), once, seed, resamples)  # (R, 3)
        samples |= span_scores(drawn)
    return {
        **scores,
        **{name: round(100 * float(value), 2) for name, value in values.items()},
        "intervals": {
            name: interval(100 * float(value), 100 * samples[name]).bounds()
            for name, value in values.items()
        },
    }


def span_scores(counts: Floats) -> dict[str, Floats]:
    """F1, precision and recall, 0 to 1, of right, gold and predicted spans: (..., 3)."""
    right, gold, guess = np.moveaxis(counts, -1, 0)
    return {
        "span_f1": 2 * right / np.maximum(gold + guess, 1),
        "span_precision": right / np.maximum(guess, 1),
        "span_recall": right / np.maximum(gold, 1),
    }


def _of_tags(counts: Floats) -> dict[str, Floats]:
    """Accuracy and macro F1 of hits, support and claims: (..., 3, K)."""
    hits, support, claimed = np.moveaxis(counts, -2, 0)
    return {
        "accuracy": hits.sum(-1) / np.maximum(support.sum(-1), 1),
        "macro_f1": macro_f1(hits, support, claimed),
    }


def _counted(gold: Floats, guess: Floats) -> Floats:
    """Hits, support and claims of each tag, (3, K), in one sentence: (words, K) each."""
    return np.stack([(gold * guess).sum(0), gold.sum(0), guess.sum(0)])


def _spans(gold: Sequence[str], guess: Sequence[str], kinds: Sequence[str]) -> Floats:
    """Right, gold and predicted spans of each type in one sentence: (3, kinds)."""
    truth, found = set(spans(gold)), set(spans(guess))
    return np.array(
        [
            [sum(kind == name for kind, _, _ in each) for name in kinds]
            for each in (truth & found, truth, found)
        ],
        dtype=np.float64,
    )


def _per_kind(counts: Floats, kinds: Sequence[str]) -> dict[str, Any]:
    made = {}
    for number, kind in enumerate(kinds):
        scores = span_scores(counts[:, number])
        made[kind] = {
            name: round(100 * float(scores[f"span_{name}"]), 2)
            for name in ("precision", "recall", "f1")
        } | {"support": int(counts[1, number])}
    return made
