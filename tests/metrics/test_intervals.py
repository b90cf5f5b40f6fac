"""An interval is that of the score of resampled rows, drawn one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from samples import LABELS, written

from foreword.metrics.answers import answers
from foreword.metrics.certainty import certainty
from foreword.metrics.classification import classification
from foreword.metrics.generation import generation
from foreword.metrics.multilabel import multilabel
from foreword.metrics.ranking import ranking
from foreword.metrics.regression import regression
from foreword.metrics.relations import relations
from foreword.metrics.resample import weights_drawn
from foreword.metrics.spans import tagging

RELATIONS = ["Cause(e1,e2)", "Cause(e2,e1)", "Whole(e1,e2)", "Other"]
TAGS = ["B-LOC", "B-PER", "I-PER", "O"]
SEED, RESAMPLES = 5, 25

Score = Callable[..., dict[str, Any]]


def pairs(labels: Sequence[str], rows: int = 40) -> list[tuple[str, str]]:
    """Gold and predicted labels, two of three right."""
    chance = random.Random(2)
    gold = chance.choices(labels, k=rows)
    return [(g, g if chance.random() < 0.6 else chance.choice(labels)) for g in gold]


def sets(rows: int = 30) -> list[tuple[list[str], list[str]]]:
    chance = random.Random(3)
    return [(chance.sample(LABELS, k=n % 3), chance.sample(LABELS, k=1)) for n in range(rows)]


def sentences(rows: int = 25) -> list[tuple[list[str], list[str]]]:
    chance = random.Random(4)
    gold = [chance.choices(TAGS, k=chance.randint(2, 9)) for _ in range(rows)]
    return [(g, g if n % 2 else chance.choices(TAGS, k=len(g))) for n, g in enumerate(gold)]


def chances(rows: int = 40) -> list[tuple[str, dict[str, float]]]:
    """Gold labels, and probabilities of which many are equal."""
    rng = np.random.default_rng(6)
    drawn = rng.multinomial(10, [0.5, 0.3, 0.2], size=rows) / 10
    names = rng.choice(LABELS[:3], size=rows).tolist()
    return [
        (g, dict(zip(LABELS[:3], own, strict=True)))
        for g, own in zip(names, drawn.tolist(), strict=True)
    ]


CASES: dict[str, tuple[Score, Sequence[tuple[Any, Any]], tuple[Any, ...], bool]] = {
    "classification": (classification, pairs(LABELS[:3]), (LABELS,), True),
    "relations": (relations, pairs(RELATIONS), (RELATIONS, "Other"), True),
    "multilabel": (multilabel, sets(), (LABELS,), False),
    "tagging": (tagging, sentences(), (TAGS,), False),
    "certainty": (certainty, chances(), (LABELS[:3],), False),
    "regression": (regression, [(n % 7, n % 5) for n in range(30)], (), False),
    "answers": (answers, [(g, [r]) for g, r in pairs(["a red hat", "red", "hat"])], (), False),
    "ranking": (ranking, [([n % 3, 1.5, 0.5], [n % 2]) for n in range(30)], (), False),
    "generation": (generation, list(zip(*written(15), strict=True)), (), False),
}
"""A score, rows of two columns, its other arguments, and whether it draws kinds of row."""


@pytest.mark.parametrize("name", CASES)
def test_an_interval_is_that_of_the_score_of_resampled_rows(name: str) -> None:
    score, rows, more, by_kind = CASES[name]
    kinds = (
        sorted(set(rows), key=lambda pair: [more[0].index(each) for each in pair])
        if by_kind
        else rows
    )
    counts = np.array([rows.count(kind) if by_kind else 1.0 for kind in kinds])
    samples = []
    for draws in weights_drawn(counts, SEED, RESAMPLES):
        for own in draws.astype(int):
            first, second = zip(
                *(kinds[i] for i in np.repeat(np.arange(len(kinds)), own)), strict=True
            )
            samples.append(score(first, second, *more, resamples=1))
    found = score(*zip(*rows, strict=True), *more, seed=SEED, resamples=RESAMPLES)
    assert found["intervals"]
    for name, bounds in found["intervals"].items():
        low, high = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
        assert low < high
        expected = [min(low, found[name]), max(high, found[name])]
        assert bounds == pytest.approx(expected, abs=0.0101), name


@pytest.mark.parametrize("name", CASES)
def test_by_default_a_thousand_resamples_are_drawn_from_seed_0(name: str) -> None:
    score, rows, more, _ = CASES[name]
    columns = list(zip(*rows, strict=True))
    assert score(*columns, *more) == score(*columns, *more, seed=0, resamples=1000)
