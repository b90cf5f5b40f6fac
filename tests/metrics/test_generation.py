"""Scores of texts agree with direct calls of sacrebleu and rouge-score."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from samples import streams, written

from foreword.errors import UserError
from foreword.metrics.generation import bleu_tokenizer, generation


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


def test_texts_are_read_once_however_many_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand resamples of many rows would take hours otherwise."""
    calls, counted = [], RougeScorer.score_multi
    monkeypatch.setattr(RougeScorer, "score_multi", lambda *args: calls.append(1) or counted(*args))
    generation(*written(20), resamples=1000)
    assert len(calls) == 20


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


@pytest.mark.parametrize("names", [("rouge_1", "rouge_2", "rouge_l"), ("bleu", "chrf"), ("chrf",)])
def test_any_scores_are_those_they_have_among_others(names: tuple[str, ...]) -> None:
    predictions, references = written(30)
    found = generation(predictions, references, scores=names)
    assert set(found["intervals"]) == set(names)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    kinds = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    whole = generation(predictions, references)
    for name in names:
        if name in whole:
            assert found[name] == whole[name]
        else:
            best = [
                max(scorer.score(text, guess)[kinds[name]].fmeasure for text in own)
                for guess, own in zip(predictions, references, strict=True)
            ]
            assert found[name] == pytest.approx(100 * sum(best) / len(best), abs=0.006)
    assert set(found.get("signatures", ())) == set(names) & {"bleu", "chrf"}
