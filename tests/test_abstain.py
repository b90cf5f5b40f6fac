"""Abstaining below a probability, and rows that belong to no label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import foreword as fw
from foreword.evaluation.evaluate import evaluate
from foreword.metrics.unknown import abstaining, apart, fit_threshold
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from toys import get, rows, toy_run

HELD, STRANGE = rows(20, 200), [{"text": f"it {n} it was"} for n in range(9)]
DRAWN = np.random.default_rng(0)
KNOWN, UNKNOWN = DRAWN.beta(4, 2, 300), DRAWN.beta(2, 3, 200)
RIGHT = DRAWN.random(300) < KNOWN


def test_the_fitted_probability_keeps_95_of_100_right_answers() -> None:
    limit = fit_threshold(KNOWN.tolist(), RIGHT.tolist())
    sure = KNOWN[RIGHT]
    assert limit in sure
    assert (sure >= limit).mean() >= 0.95
    assert (sure > limit).mean() < 0.95
    for count, dropped in ((19, 0), (20, 1), (21, 1), (40, 2), (100, 5)):
        assert fit_threshold([n / 100 for n in range(count)], [True] * count) == dropped / 100
    assert fit_threshold([0.3, 0.4], [False, False]) == 0


def test_coverage_and_accuracy_are_counted_over_the_answered_rows() -> None:
    found = abstaining(KNOWN.tolist(), RIGHT.tolist(), 0.7)
    given = KNOWN >= 0.7
    assert found["coverage"] == pytest.approx(100 * given.mean(), abs=0.01)
    assert found["answered_accuracy"] == pytest.approx(100 * RIGHT[given].mean(), abs=0.01)
    low, high = found["intervals"]["coverage"]
    spread = 100 * np.sqrt(given.mean() * (1 - given.mean()) / 300)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    none = abstaining([0.1], [True], 0.5)
    assert (none["coverage"], none["answered_accuracy"]) == (0, 0)


def test_unknown_rows_are_told_apart_as_scikit_learn_counts() -> None:
    found = apart(KNOWN.tolist(), UNKNOWN.tolist(), 0.5)
    gold = [1] * 300 + [0] * 200
    assert found["auroc"] == round(100 * roc_auc_score(gold, [*KNOWN, *UNKNOWN]), 2)
    assert found["false_acceptance"] == pytest.approx(100 * (UNKNOWN >= 0.5).mean(), abs=0.01)
    again = [
        roc_auc_score(gold, [*DRAWN.choice(KNOWN, 300), *DRAWN.choice(UNKNOWN, 200)])
        for _ in range(300)
    ]
    low, high = found["intervals"]["auroc"]
    assert [low, high] == pytest.approx(100 * np.percentile(again, [2.5, 97.5]), abs=1)
    with pytest.raises(fw.UserError, match="no rows to score"):
        apart([0.5], [], 0.5)


def test_an_evaluation_says_what_is_answered_from_a_probability_on() -> None:
    prompt = toy_run(None)
    chances = [max(a["probabilities"].values()) for a in prompt.answers(HELD)]
    found = evaluate(prompt, HELD, unknown=STRANGE)["abstaining"]
    scores = evaluate(prompt, HELD)
    assert found["fitted"]
    assert found["min_probability"] == fit_threshold(chances, [bool(r.right) for r in scores.rows])
    assert found["unknown_rows"] == 9
    assert set(found["intervals"]) == {
        "coverage", "answered_accuracy", "auroc", "false_acceptance",
    }  # fmt: skip
    limit = float(np.median(chances))
    given = evaluate(prompt, HELD, min_probability=limit)["abstaining"]
    assert given["coverage"] == 50
    assert "auroc" not in given
    kept = prompt.with_min_probability(limit)
    for way in ({"min_probability": "auto"}, {"unknown": STRANGE}):
        told: dict[str, Any] = evaluate(kept, HELD, **way)["abstaining"]  # type: ignore[arg-type]
        assert (told["min_probability"], told["fitted"]) == (limit, False)
    assert evaluate(kept, HELD, min_probability="fit")["abstaining"]["fitted"]
    for each in (kept, prompt):
        assert evaluate(each, HELD, min_probability=0)["abstaining"]["coverage"] == 100
    assert "abstaining" not in scores


def test_predict_leaves_unsure_answers_out_and_a_file_keeps_the_probability(
    tmp_path: Path,
) -> None:
    prompt = toy_run(None)
    texts = [str(row.fields["text"]) for row in HELD]
    chances = [max(a["probabilities"].values()) for a in prompt.answers(HELD)]
    limit = float(np.median(chances))
    path = prompt.with_min_probability(limit).save(tmp_path / "p.safetensors")
    kept = Prompt.load(path, get())
    sure = [
        each if chance >= limit else None
        for each, chance in zip(prompt.predict(texts, report=SILENT), chances, strict=True)
    ]
    assert kept.predict(texts, min_probability="auto", report=SILENT) == sure
    assert kept.predict(texts, min_probability=limit, report=SILENT) == sure
    assert None not in kept.predict(texts, report=SILENT)
    assert kept.predict(texts[0], min_probability=1) is None
    assert "min_probability" not in kept.add_label("it").data  # it was of other labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min_probability": "auto"}, "the prompt keeps no probability"),
        ({"min_probability": 2}, "`min_probability=2.0`: give a probability, from 0 to 1"),
        ({"min_probability": "high"}, "`min_probability=high`: give a probability"),
        ({"min_probability": [0.5]}, r"`min_probability=\[0.5\]`: give a probability"),
        ({"min_probability": 0.5, "probabilities": True}, "give one of both"),
    ],
)
def test_wrong_probabilities_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(fw.UserError, match=said):
        toy_run(None).predict("a film", **given)
    if "probabilities" not in given:
        with pytest.raises(fw.UserError, match=said):
            evaluate(toy_run(None), HELD, **given)


def test_an_ensemble_abstains_by_a_number_alone() -> None:
    one = toy_run(None).with_min_probability(0.5)
    both = fw.Ensemble((one, one), (0.5, 0.5))
    assert both.predict("a film", min_probability=1.0) is None
    with pytest.raises(fw.UserError, match="keeps no probability"):
        both.predict("a film", min_probability="auto")
    assert evaluate(both, HELD, unknown=STRANGE)["abstaining"]["fitted"]
