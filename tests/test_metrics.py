"""Scores agree with direct calls of the libraries; intervals behave as a bootstrap must."""

from __future__ import annotations

import json
import math
import random
import time
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize as rouge_tokenize
from scipy import stats
from sklearn import metrics as sk

from foreword.errors import UserError
from foreword.metrics import (
    bleu_tokenizer,
    bootstrap,
    classification,
    generation,
    regression,
    words,
)

LABELS = ["refund", "delivery", "other", "unused"]
VOCABULARY = [f"word{i}" for i in range(30)]


def labelled(rows: int, seed: int = 0, right: float = 0.7) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    gold = rng.choices(LABELS[:3], weights=[5, 3, 1], k=rows)
    return gold, [label if rng.random() < right else rng.choice(LABELS[:3]) for label in gold]


def written(rows: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Predictions, and one to four references each; the last word is right in most rows."""
    rng = random.Random(seed)
    references = [
        [" ".join(rng.choices(VOCABULARY, k=rng.randint(4, 12))) for _ in range(rng.randint(1, 4))]
        for _ in range(rows)
    ]
    predictions = [
        " ".join(w if rng.random() < keep else rng.choice(VOCABULARY) for w in row[0].split())
        for row, keep in zip(references, rng.choices([1.0, 0.6], k=rows), strict=True)
    ]
    return predictions, references


def streams(references: list[list[str]]) -> list[list[str | None]]:
    most = max(map(len, references))
    return [[row[i] if i < len(row) else None for row in references] for i in range(most)]


# --- classification


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


def test_classification_intervals_are_those_of_resampled_rows() -> None:
    """Drawing confusion cells gives the same distribution as drawing rows, scored by sklearn."""
    gold, predicted = labelled(80, seed=3)
    scores = classification(gold, predicted, LABELS, resamples=20_000)

    index = {label: i for i, label in enumerate(LABELS)}
    truth, guess = (np.array([index[label] for label in side]) for side in (gold, predicted))
    rng = np.random.default_rng(1)
    accuracies, macros = [], []
    for _ in range(1500):
        rows = rng.integers(80, size=80)
        t, g = truth[rows], guess[rows]
        accuracies.append(100 * np.mean(t == g))
        f1 = sk.f1_score(t, g, average="macro", labels=np.unique(t), zero_division=0)
        macros.append(100 * f1)
    # Monte Carlo error of these percentiles is about half a point.
    for name, naive in (("accuracy", accuracies), ("macro_f1", macros)):
        assert scores["intervals"][name] == pytest.approx(
            np.percentile(naive, [2.5, 97.5]).tolist(), abs=2.0
        )


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


def test_ten_thousand_rows_of_77_labels_take_less_than_two_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = [f"intent {i}" for i in range(77)]
    gold = rng.integers(77, size=10_000)
    predicted = np.where(rng.random(10_000) < 0.5, gold, rng.integers(77, size=10_000))
    start = time.process_time()
    classification([labels[i] for i in gold], [labels[i] for i in predicted], labels)
    assert time.process_time() - start < 2 * 2  # CPU time of two threads


# --- generation


def test_generation_is_sacrebleu_and_rouge_score() -> None:
    predictions, references = written(60)
    predictions[0] = f"  {references[0][-1]}\n"  # right, with white space around
    scores = generation(predictions, references, resamples=20)

    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    assert scores["bleu"] == round(bleu.corpus_score(predictions, streams(references)).score, 2)
    assert scores["chrf"] == round(chrf.corpus_score(predictions, streams(references)).score, 2)
    assert scores["signatures"] == {
        "bleu": str(bleu.get_signature()),
        "chrf": str(chrf.get_signature()),
    }
    assert "nrefs:var" in scores["signatures"]["bleu"]
    scorer = RougeScorer(["rougeL"])
    best = [
        max(scorer.score(text, guess)["rougeL"].fmeasure for text in row)
        for guess, row in zip(predictions, references, strict=True)
    ]
    assert scores["rouge_l"] == round(100 * float(np.mean(best)), 2)
    equal = [p.strip() in row for p, row in zip(predictions, references, strict=True)]
    assert equal[0]
    assert 0 < sum(equal) < 60
    assert scores["exact_match"] == round(100 * float(np.mean(equal)), 2)
    assert json.loads(json.dumps(scores)) == scores


def test_generation_intervals_are_those_of_resampled_rows() -> None:
    predictions, references = written(30, seed=5)
    scores = generation(predictions, references, resamples=4000)
    rng = np.random.default_rng(1)
    naive: dict[str, list[float]] = {"bleu": [], "chrf": []}
    for _ in range(300):
        rows = rng.integers(30, size=30)
        hypotheses, texts = [predictions[i] for i in rows], streams([references[i] for i in rows])
        naive["bleu"].append(sacrebleu.corpus_bleu(hypotheses, texts, force=True).score)
        naive["chrf"].append(sacrebleu.corpus_chrf(hypotheses, texts).score)
    for name, samples in naive.items():
        wide = float(np.ptp(samples))
        assert scores["intervals"][name] == pytest.approx(
            np.percentile(samples, [2.5, 97.5]).tolist(), abs=0.15 * wide
        )


def test_perfect_and_empty_predictions() -> None:
    text = "the cat sat on the mat"
    perfect = generation([text], [[text]], resamples=10)
    empty = generation(["", ""], [[text], [text, "a dog"]], resamples=10)
    for name in ("exact_match", "bleu", "chrf", "rouge_l"):
        assert perfect[name] == pytest.approx(100)
        assert empty[name] == 0
        assert empty["intervals"][name] == [0, 0]
    assert generation(["", text], [[""], [text]], resamples=10)["exact_match"] == 100


def test_generation_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="lengths differ: 2 and 1"):
        generation(["a", "b"], [["a"]])
    with pytest.raises(TypeError, match="row 1 must be a list"):
        generation(["a"], ["a"])
    with pytest.raises(UserError, match="row 2 has no reference"):
        generation(["a", "b"], [["a"], []])
    with pytest.raises(UserError, match="no rows"):
        generation([], [])


def test_a_thousand_rows_take_less_than_five_seconds() -> None:
    predictions, references = written(1000)
    start = time.process_time()
    generation(predictions, references)
    assert time.process_time() - start < 2 * 5  # CPU time of two threads


# --- languages


CHINESE = "我们明天在北京见面,谢谢你。"
JAPANESE = "これはとても良い映画です。"


@pytest.mark.parametrize(
    ("text", "language", "tokenizer"),
    [
        ("a cat on a mat", None, "13a"),
        (CHINESE, None, "zh"),
        (JAPANESE, None, "char"),
        (f"The sign in the station said {CHINESE[:4]}", None, "13a"),
        ("오늘은 날씨가 좋다", None, "13a"),
        ("1234 ...", None, "13a"),
        (CHINESE, "en", "13a"),
        ("plain", "zh-TW", "zh"),
        ("plain", "ja", "char"),
        ("plain", "xx", "13a"),
    ],
)
def test_bleu_tokenizer(text: str, language: str | None, tokenizer: str) -> None:
    assert bleu_tokenizer([[text]], language) == tokenizer
    signature = generation(["x"], [[text]], language=language, resamples=1)["signatures"]["bleu"]
    assert f"tok:{tokenizer}|" in signature


def test_chinese_scores_by_character() -> None:
    prediction = CHINESE.replace("明天", "今天")
    scores = generation([prediction], [[CHINESE]], resamples=10)
    expected = sacrebleu.corpus_bleu([prediction], [[CHINESE]], tokenize="zh").score
    assert scores["bleu"] == round(expected, 2) > 50
    characters = [c for c in CHINESE if c.isalpha()]
    share = (len(characters) - 1) / len(characters)
    assert scores["rouge_l"] == pytest.approx(100 * share, abs=0.005)
    # rouge-score's own tokenizer sees nothing at all in it
    assert RougeScorer(["rougeL"]).score(CHINESE, CHINESE)["rougeL"].fmeasure == 0


@given(st.text(st.characters(max_codepoint=127)))
@settings(deadline=None)
def test_words_of_ascii_text_are_rouge_scores(text: str) -> None:
    assert words(text) == rouge_tokenize(text, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Größe ÉTÉ snake_case", ["größe", "été", "snake", "case"]),
        ("ab你好c3", ["ab", "你", "好", "c3"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are marks, and stay in their word
        ("안녕하세요 여러분", ["안녕하세요", "여러분"]),
        ("❤\ufe0f ... \u0301", []),
    ],
)
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text())
@settings(deadline=None)
def test_words_lose_no_letter(text: str) -> None:
    kept = "".join(words(text))
    assert [c for c in kept if c.isalpha()] == [c for c in text.lower() if c.isalpha()]


# --- intervals


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_bootstrap_holds_the_mean_and_stays_in_range(per_row: list[float], seed: int) -> None:
    interval = bootstrap(per_row, seed, 200)
    assert interval.value == pytest.approx(100 * math.fsum(per_row) / len(per_row))
    assert interval.low <= interval.value <= interval.high
    assert 100 * min(per_row) - 1e-9 <= interval.low
    assert interval.high <= 100 * max(per_row) + 1e-9


def test_bootstrap_is_near_the_normal_approximation() -> None:
    interval = bootstrap([1.0] * 160 + [0.0] * 40, seed=0, resamples=5000)
    half = 100 * 1.96 * math.sqrt(0.8 * 0.2 / 200)
    assert interval.value == pytest.approx(80)
    assert interval.low == pytest.approx(80 - half, abs=2)
    assert interval.high == pytest.approx(80 + half, abs=2)


def test_bootstrap_covers_the_true_rate() -> None:
    """Of 200 samples of Bernoulli(0.8), about 95% give an interval that holds 0.8."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        interval = bootstrap((rng.random(200) < 0.8).astype(float).tolist(), seed, 300)
        held += interval.low <= 80 <= interval.high
    assert 178 <= held < 200


def test_many_rows_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    per_row = np.random.default_rng(0).random(50).tolist()
    whole = bootstrap(per_row, 0, 100)
    monkeypatch.setattr("foreword.metrics._CHUNK", 350)
    assert bootstrap(per_row, 0, 100) == whole


def test_bootstrap_of_no_rows() -> None:
    with pytest.raises(UserError, match="no rows"):
        bootstrap([])


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_intervals_hold_the_value_repeat_by_seed_and_narrow_with_rows(kind: str) -> None:
    def score(rows: int, seed: int) -> dict[str, Any]:
        if kind == "classification":
            return classification(*labelled(rows), LABELS, seed=seed, resamples=300)
        return generation(*written(rows), seed=seed, resamples=300)

    few, many = score(40, 0), score(400, 0)
    assert score(40, 0) == few
    assert score(40, 1)["intervals"] != few["intervals"]
    for name, (low, high) in few["intervals"].items():
        assert low <= few[name] <= high
        narrow = many["intervals"][name]
        assert narrow[0] <= many[name] <= narrow[1]
        assert 0 < narrow[1] - narrow[0] < 0.7 * (high - low)


# --- regression


def numbers(rows: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Gold numbers with many ties, as people give them, and noisy guesses."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 26, rows) / 5
    return gold.tolist(), (gold + rng.normal(0, 1, rows)).round(1).tolist()


def by_libraries(gold: Any, guess: Any) -> dict[str, float]:
    return {
        "pearson": 100 * stats.pearsonr(gold, guess).statistic,
        "spearman": 100 * stats.spearmanr(gold, guess).statistic,
        "rmse": sk.root_mean_squared_error(gold, guess),
        "mae": sk.mean_absolute_error(gold, guess),
    }


def test_regression_is_scipys_and_scikit_learns() -> None:
    gold, guess = numbers(200)
    scores = regression(gold, guess, resamples=50)
    assert scores["rows"] == 200
    for name, value in by_libraries(gold, guess).items():
        assert scores[name] == pytest.approx(value, abs=0.006 if value > 5 else 6e-5)
        low, high = scores["intervals"][name]
        assert low < scores[name] < high
    assert json.loads(json.dumps(scores)) == scores


def test_regression_intervals_are_those_of_resampled_rows() -> None:
    gold, guess = map(np.array, numbers(60, seed=1))
    rng = np.random.default_rng(0)
    drawn = [np.repeat(np.arange(60), rng.multinomial(60, [1 / 60] * 60)) for _ in range(300)]
    samples = [by_libraries(gold[rows], guess[rows]) for rows in drawn]
    found = regression(gold.tolist(), guess.tolist(), seed=0, resamples=300)["intervals"]
    for name, bounds in found.items():
        expected = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
        assert bounds == pytest.approx(expected.tolist(), abs=0.006 if name != "mae" else 6e-5)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_correlations_know_no_units(scale: float, offset: float) -> None:
    gold, guess = numbers(50)
    moved = regression(gold, [scale * g + offset for g in guess], resamples=5)
    assert moved["pearson"] == pytest.approx(
        regression(gold, guess, resamples=5)["pearson"], abs=0.02
    )


@pytest.mark.parametrize("constant", [0.0, 3.3, 1e9])
def test_a_constant_answer_correlates_with_nothing(constant: float) -> None:
    scores = regression([1.0, 2.0, 4.5], [constant] * 3)
    assert scores["pearson"] == scores["spearman"] == 0
    assert scores["intervals"]["pearson"] == [0, 0]
    assert regression([1.0], [2.0])["rmse"] == 1


def test_a_perfect_and_a_turned_answer() -> None:
    gold, _ = numbers(30)
    scores = regression(gold, gold)
    assert (scores["pearson"], scores["spearman"], scores["rmse"]) == (100, 100, 0)
    assert regression(gold, [-g for g in gold])["spearman"] == -100


def test_regression_refuses_wrong_input() -> None:
    with pytest.raises(UserError, match="no rows"):
        regression([], [])
    with pytest.raises(ValueError, match="lengths differ"):
        regression([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        regression([1.0], [math.nan])
