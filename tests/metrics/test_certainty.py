"""Scores of probabilities agree with scikit-learn and with counting by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn import metrics as sk

from foreword.errors import UserError
from foreword.metrics.certainty import auroc, certainty

LABELS = ["a", "b", "c"]


def drawn(rows: int, labels: int, seed: int = 0) -> tuple[list[int], np.ndarray]:
    """Gold labels and probabilities that know something of them, many of them equal."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(labels, size=rows)
    logits = np.round(rng.normal(size=(rows, labels)) + 1.5 * np.eye(labels)[gold], 0)
    chances = np.exp(logits)
    return gold.tolist(), chances / chances.sum(1, keepdims=True)


def found(gold: list[int], chances: np.ndarray, **more: int) -> dict[str, float]:
    names = LABELS[: chances.shape[1]]
    rows = [dict(zip(names, row, strict=True)) for row in chances.tolist()]
    return certainty([names[label] for label in gold], rows, names, **more)


def test_three_labels_are_scored_as_scikit_learn_does() -> None:
    gold, chances = drawn(200, 3)
    scores = found(gold, chances, resamples=50)
    whole = sk.roc_auc_score(gold, chances, multi_class="ovr", average="macro")
    assert scores["auroc"] == round(100 * whole, 2)
    assert scores["mcc"] == round(100 * sk.matthews_corrcoef(gold, chances.argmax(1)), 2)


def test_two_labels_have_one_area() -> None:
    gold, chances = drawn(150, 2, seed=1)
    chances = np.round(chances, 6)  # so that what ties for one label does for the other
    chances[:, 0] = 1 - chances[:, 1]
    assert found(gold, chances)["auroc"] == round(100 * sk.roc_auc_score(gold, chances[:, 1]), 2)


def test_a_label_that_does_not_occur_is_left_out_of_the_area() -> None:
    gold, chances = drawn(100, 3, seed=2)
    kept = [n for n, label in enumerate(gold) if label != 2]
    gold, chances = [gold[n] for n in kept], chances[kept]
    areas = [sk.roc_auc_score([label == k for label in gold], chances[:, k]) for k in (0, 1)]
    assert found(gold, chances)["auroc"] == round(100 * np.mean(areas), 2)


def test_rows_of_one_label_have_no_area() -> None:
    scores = found([1, 1, 1], np.array([[0.2, 0.8]] * 3), resamples=20)
    assert "auroc" not in scores
    assert scores["mcc"] == 0.0
    assert scores["ece"] == 20.0


def test_the_calibration_error_by_hand() -> None:
    """Two rows at 0.9 of which one is right, two at 0.6 both right: (0.8 + 0.8) / 4."""
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    scores = found([0, 1, 0, 0], chances, resamples=20)
    assert scores["ece"] == pytest.approx(100 * (0.8 + 0.8) / 4)


def test_a_bin_is_closed_on_the_right() -> None:
    """10/15 belongs to the tenth bin and 10/15 + 0.01 to the next, so their errors do not meet."""
    edge = 10 / 15
    chances = np.array([[edge, 1 - edge], [edge + 0.01, 0.99 - edge]])
    apart = abs(edge - 1) + abs(edge + 0.01 - 0)
    assert found([0, 1], chances, resamples=5)["ece"] == pytest.approx(100 * apart / 2, abs=0.01)


def test_an_area_of_rows_drawn_several_times_is_that_of_their_copies() -> None:
    gold, chances = drawn(30, 3, seed=5)
    draws = np.random.default_rng(0).multinomial(30, [1 / 30] * 30, size=4).astype(float)
    truth = np.eye(3)[gold]
    for drawn_rows, area in zip(draws, auroc(truth, chances, draws), strict=True):
        copies = np.repeat(np.arange(30), drawn_rows.astype(int))
        expected = sk.roc_auc_score(truth[copies], chances[copies], average="macro")
        assert area == pytest.approx(expected)


def test_many_labels_take_little_more_memory_than_their_probabilities() -> None:
    rows, names = 500, [f"label {n}" for n in range(400)]
    chances = [dict.fromkeys(names, 1 / len(names))] * rows
    gold = [names[n % len(names)] for n in range(rows)]
    tracemalloc.start()
    certainty(gold, chances, names, resamples=1)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * rows * len(names) * 8


def test_no_rows_and_lengths_that_differ_are_refused() -> None:
    with pytest.raises(UserError, match="no rows"):
        certainty([], [], LABELS)
    with pytest.raises(ValueError, match="lengths differ"):
        certainty(["a"], [], LABELS)
