"""The official score of SemEval-2010 Task 8, by numbers that its scorer printed and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from foreword.errors import UserError
from foreword.metrics.classification import label_counts
from foreword.metrics.relations import official_f1, relations, split_direction

NAMES = [
    "Cause-Effect",
    "Component-Whole",
    "Content-Container",
    "Entity-Destination",
    "Entity-Origin",
    "Instrument-Agency",
    "Member-Collection",
    "Message-Topic",
    "Product-Producer",
]
# What scorer v1.2 printed for one system's answers: gold by rows, the last column and row are
# Other; then how many of each relation had the wrong direction, and the macro F1.
PRINTED = [
    [296, 0, 0, 0, 9, 1, 0, 1, 2, 15],
    [2, 209, 5, 3, 1, 9, 13, 5, 2, 32],
    [0, 4, 160, 10, 2, 0, 0, 1, 0, 11],
    [0, 2, 10, 260, 0, 0, 0, 2, 1, 16],
    [2, 1, 0, 12, 221, 1, 0, 1, 3, 16],
    [0, 4, 1, 2, 2, 101, 1, 3, 9, 31],
    [0, 6, 0, 0, 2, 3, 195, 4, 2, 20],
    [1, 2, 0, 2, 0, 0, 3, 228, 3, 19],
    [4, 4, 2, 1, 9, 10, 0, 5, 167, 24],
    [20, 25, 25, 25, 32, 20, 39, 39, 26, 203],
]
WRONG = [4, 31, 4, 1, 1, 2, 1, 3, 5]
MACRO = 79.05
LABELS = [f"{name}({way})" for name in NAMES for way in ("e1,e2", "e2,e1")] + ["Other"]


def printed() -> tuple[list[str], list[str]]:
    gold: list[str] = []
    guess: list[str] = []
    for row, counts in enumerate(PRINTED):
        for column, count in enumerate(counts):
            gold += [LABELS[min(2 * row, 18)]] * count
            guess += [LABELS[min(2 * column, 18)]] * count
    for relation, count in enumerate(WRONG):
        gold += [LABELS[2 * relation]] * count
        guess += [LABELS[2 * relation + 1]] * count
    return gold, guess


def test_the_official_scorers_own_number() -> None:
    gold, guess = printed()
    assert len(gold) == 2717
    scores = relations(gold, guess, LABELS, "Other", resamples=50)
    assert scores["official_f1"] == MACRO
    low, high = scores["intervals"]["official_f1"]
    assert low < MACRO < high


def test_by_hand() -> None:
    """A: 1 right of 3 answered and 2 gold, F1 2/5; B: 1 of 1 and 2, F1 2/3; Other is left out."""
    labels = ["A(e1,e2)", "A(e2,e1)", "B", "Other"]
    gold = ["A(e1,e2)", "A(e1,e2)", "B", "B", "Other", "Other"]
    guess = ["A(e1,e2)", "A(e2,e1)", "B", "Other", "A(e2,e1)", "Other"]
    scores = relations(gold, guess, labels, "Other", resamples=5)
    assert scores["official_f1"] == pytest.approx(100 * (2 / 5 + 2 / 3) / 2, abs=0.005)


def test_the_wrong_direction_costs_precision_and_recall() -> None:
    labels = ["A(e1,e2)", "A(e2,e1)", "Other"]
    right = np.diag([10.0, 0, 5])
    turned = np.array([[9.0, 1, 0], [0, 0, 0], [0, 0, 5]])
    missed = np.array([[9.0, 0, 1], [0, 0, 0], [0, 0, 5]])
    assert official_f1(*label_counts(right), labels, "Other") == 1
    # Precision and recall 9/10 each; then 9/9 and 9/10.
    assert official_f1(*label_counts(turned), labels, "Other") == pytest.approx(0.9)
    assert official_f1(*label_counts(missed), labels, "Other") == pytest.approx(18 / 19)


def test_a_relation_without_gold_rows_does_not_count() -> None:
    labels = ["A(e1,e2)", "B(e1,e2)", "none"]
    confusion = np.array([[4.0, 0, 0], [0, 0, 0], [0, 2, 3]])
    assert official_f1(*label_counts(confusion), labels, "none") == 1
    assert official_f1(*label_counts(np.zeros((3, 3))), labels, "none") == 0


def test_several_matrices_at_once() -> None:
    labels = ["A(e1,e2)", "A(e2,e1)", "Other"]
    many = np.random.default_rng(0).integers(9, size=(4, 3, 3)).astype(float)
    expected = [float(official_f1(*label_counts(each), labels, "Other")) for each in many]
    assert official_f1(*label_counts(many), labels, "Other").tolist() == expected


def test_names_and_directions() -> None:
    assert split_direction("Cause-Effect(e1,e2)") == ("Cause-Effect", "e1,e2")
    assert split_direction("born_in") == ("born_in", "")
    assert split_direction("odd(name)") == ("odd(name)", "")


def test_no_rows_are_refused() -> None:
    with pytest.raises(UserError, match="no rows"):
        relations([], [], LABELS, "Other")
    with pytest.raises(ValueError, match="lengths differ"):
        relations(["Other"], [], LABELS, "Other")


@pytest.mark.slow
def test_a_thousand_relations_are_scored() -> None:
    labels = [f"R{number}(e1,e2)" for number in range(1000)]
    scores = relations(labels[:20], labels[10:30], labels, "Other", resamples=5)
    assert scores["official_f1"] == 0
