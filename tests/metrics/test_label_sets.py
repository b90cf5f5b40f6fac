"""Scores of many labels agree with direct calls of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from foreword.errors import UserError
from foreword.metrics.multilabel import multilabel

LABELS = ["art", "law", "war", "never"]


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]
    return gold, np.clip(0.5 * gold + rng.random((rows, 4)) * 0.6, 0, 1)


def names(table: np.ndarray) -> list[list[str]]:
    return [[label for label, own in zip(LABELS, row, strict=True) if own] for row in table]


def test_scores_are_scikit_learns() -> None:
    gold, chances = drawn(120)
    guess = chances > 0.5
    rows = [dict(zip(LABELS, row, strict=True)) for row in chances.tolist()]
    scores = multilabel(names(gold), names(guess), LABELS, probabilities=rows, resamples=50)
    assert scores["micro_f1"] == round(100 * sk.f1_score(gold, guess, average="micro"), 2)
    macro = sk.f1_score(gold[:, :3], guess[:, :3], average="macro")
    assert scores["macro_f1"] == round(100 * macro, 2)
    assert scores["exact_match"] == round(100 * sk.accuracy_score(gold, guess), 2)
    for number, label in enumerate(LABELS[:3]):
        area = sk.roc_auc_score(gold[:, number], chances[:, number])
        assert scores["per_class"][label]["auroc"] == round(100 * area, 2)
        own = sk.precision_score(gold[:, number], guess[:, number])
        assert scores["per_class"][label]["precision"] == round(100 * own, 2)
        assert scores["per_class"][label]["support"] == gold[:, number].sum()
    assert "auroc" not in scores["per_class"]["never"]


def test_the_area_of_a_label_that_one_row_has() -> None:
    chances = [{"art": 0.9}, {"art": 0.2}, {"art": 0.95}]
    scores = multilabel([["art"], [], []], [[], [], []], ["art"], probabilities=chances)
    assert scores["per_class"]["art"]["auroc"] == 50.0


def test_rows_without_labels() -> None:
    scores = multilabel([[], []], [[], ["art"]], LABELS, resamples=5)
    assert scores["micro_f1"] == scores["macro_f1"] == 0.0
    assert scores["exact_match"] == 50.0
    with pytest.raises(UserError, match="no rows"):
        multilabel([], [], LABELS)
