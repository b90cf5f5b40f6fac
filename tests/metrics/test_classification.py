"""Scores of labels agree with direct calls of scikit-learn."""

from __future__ import annotations

import json

import pytest
from samples import LABELS, labelled
from sklearn import metrics as sk

from foreword.errors import UserError
from foreword.metrics.classification import classification


def test_classification_is_scikit_learns() -> None:
    gold, predicted = labelled(300)
    scores = classification(gold, predicted, LABELS, resamples=50)

    assert scores["rows"] == 300
    assert scores["accuracy"] == round(100 * sk.accuracy_score(gold, predicted), 2)
    # "unused" is a label without a gold row: it stays out of the mean.
    macro = sk.f1_score(gold, predicted, average="macro", labels=LABELS[:3])
    assert scores["macro_f1"] == round(100 * macro, 2)
    report = sk.classification_report(
        gold, predicted, labels=LABELS, output_dict=True, zero_division=0
    )
    for label in LABELS:
        mine, theirs = scores["per_class"][label], report[label]
        assert mine["precision"] == pytest.approx(100 * theirs["precision"], abs=0.006)
        assert mine["recall"] == pytest.approx(100 * theirs["recall"], abs=0.006)
        assert mine["f1"] == pytest.approx(100 * theirs["f1-score"], abs=0.006)
        assert mine["support"] == theirs["support"]
    matrix = sk.confusion_matrix(gold, predicted, labels=LABELS).tolist()
    assert scores["confusion"] == {"labels": LABELS, "matrix": matrix}
    assert json.loads(json.dumps(scores)) == scores


def test_all_rows_of_one_label() -> None:
    scores = classification(["refund"] * 5, ["refund"] * 5, LABELS, resamples=50)
    assert scores["accuracy"] == scores["macro_f1"] == 100.0
    assert scores["intervals"] == {"accuracy": [100.0, 100.0], "macro_f1": [100.0, 100.0]}
    assert scores["per_class"]["other"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_a_label_never_predicted_counts_as_zero() -> None:
    gold = ["refund", "refund", "other", "other"]
    scores = classification(gold, ["refund"] * 4, LABELS, resamples=50)
    assert scores["per_class"]["other"]["f1"] == 0
    assert scores["macro_f1"] == pytest.approx(100 * (2 / 3 + 0) / 2, abs=0.005)


def test_a_label_only_predicted_stays_out_of_macro_f1() -> None:
    gold, predicted = ["refund"] * 100, ["refund", "unused"] * 50
    scores = classification(gold, predicted, LABELS, resamples=200)
    assert scores["macro_f1"] == pytest.approx(100 * 2 / 3, abs=0.005)
    assert scores["intervals"]["macro_f1"][0] > 50  # in every resample, too


def test_labels_that_numpy_strings_would_confuse() -> None:
    scores = classification(["a", "a\0"], ["a\0", "a"], ["a", "a\0"], resamples=10)
    assert scores["accuracy"] == 0.0


def test_classification_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="lengths differ: 1 and 2"):
        classification(["refund"], ["refund", "other"], LABELS)
    with pytest.raises(ValueError, match=r"not among the labels: \['nonsense'\]"):
        classification(["refund"], ["nonsense"], LABELS)
    with pytest.raises(ValueError, match="labels repeat"):
        classification(["refund"], ["refund"], ["refund", "refund"])
    with pytest.raises(ValueError, match="resamples"):
        classification(["refund"], ["refund"], LABELS, resamples=0)
    with pytest.raises(UserError, match="no rows"):
        classification([], [], LABELS)


def test_rows_are_read_once_however_many_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand resamples of many rows would take minutes otherwise."""
    calls, counted = [], sk.f1_score
    monkeypatch.setattr(sk, "f1_score", lambda *a, **b: calls.append(1) or counted(*a, **b))
    classification(*labelled(100), LABELS, resamples=1000)
    assert len(calls) == 1
