"""Scores of tags: words by scikit-learn, spans by hand, as conlleval and seqeval count them."""

from __future__ import annotations

import random
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from foreword.errors import UserError
from foreword.metrics.bio import follows, is_bio, spans
from foreword.metrics.spans import tagging

BIO = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def cut(tags: str) -> list[str]:
    return tags.split()


def test_spans_by_hand() -> None:
    assert spans(cut("O B-PER I-PER O B-LOC")) == [("PER", 1, 3), ("LOC", 4, 5)]
    assert spans(cut("B-PER B-PER I-PER")) == [("PER", 0, 1), ("PER", 1, 3)]
    assert spans(cut("B-PER I-LOC")) == [("PER", 0, 1), ("LOC", 1, 2)]
    assert spans(cut("I-PER I-PER O")) == [("PER", 0, 2)]  # conlleval begins one here
    assert spans(cut("O O")) == []


@given(st.lists(st.sampled_from(BIO), max_size=8))
def test_spans_part_the_words_that_are_not_outside(tags: list[str]) -> None:
    inside = [place for _, start, end in spans(tags) for place in range(start, end)]
    assert inside == [place for place, tag in enumerate(tags) if tag != "O"]
    for kind, start, end in spans(tags):
        assert {tag[2:] for tag in tags[start:end]} == {kind}
        assert all(tag.startswith("I-") for tag in tags[start + 1 : end])


def test_the_scheme_is_told_by_its_tags() -> None:
    assert is_bio(BIO)
    assert is_bio(["B-X"])
    assert not is_bio(["NOUN", "O"])
    assert not is_bio(["I-X", "O"])
    assert not is_bio(["B-", "O"])
    assert follows("B-X", "I-X")
    assert follows("I-X", "I-X")
    assert follows("O", "B-X")
    assert not follows("O", "I-X")
    assert not follows("B-Y", "I-X")


def test_span_scores_by_hand() -> None:
    """seqeval's own example: one span of another length, one right: 1 of 2 and 1 of 2."""
    gold = [cut("O O O B-MISC I-MISC I-MISC O"), cut("B-PER I-PER O")]
    guess = [cut("O O B-MISC I-MISC I-MISC I-MISC O"), cut("B-PER I-PER O")]
    labels = ["B-MISC", "B-PER", "I-MISC", "I-PER", "O"]
    scores = tagging(gold, guess, labels, resamples=20)
    assert scores["span_f1"] == scores["span_precision"] == scores["span_recall"] == 50.0
    assert scores["accuracy"] == 80.0
    assert scores["rows"] == 2
    assert scores["words"] == 10
    assert scores["per_class"] == {
        "MISC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "PER": {"precision": 100.0, "recall": 100.0, "f1": 100.0, "support": 1},
    }


def test_precision_and_recall_part() -> None:
    gold = [cut("B-PER O B-LOC I-LOC O B-LOC")]
    guess = [cut("B-PER O B-LOC B-LOC O O")]  # 1 right, 3 found, 3 there
    scores = tagging(gold, guess, BIO, resamples=5)
    assert scores["span_precision"] == scores["span_recall"] == pytest.approx(33.33)
    guess = [cut("B-PER O O O O O")]
    scores = tagging(gold, guess, BIO, resamples=5)
    assert scores["span_precision"] == 100.0
    assert scores["span_recall"] == pytest.approx(33.33)
    assert scores["span_f1"] == 50.0
    nothing = tagging(gold, [["O"] * 6], BIO, resamples=5)
    assert nothing["span_f1"] == nothing["span_precision"] == 0.0


def test_words_are_scored_as_scikit_learn_does() -> None:
    chance = random.Random(0)
    labels = ["ADJ", "NOUN", "VERB", "X"]
    gold = [chance.choices(labels[:3], k=chance.randint(1, 9)) for _ in range(40)]
    guess = [[t if chance.random() < 0.7 else chance.choice(labels) for t in row] for row in gold]
    scores = tagging(gold, guess, labels, resamples=20)
    truth, found = list(chain(*gold)), list(chain(*guess))
    assert scores["accuracy"] == round(100 * sk.accuracy_score(truth, found), 2)
    macro = sk.f1_score(truth, found, average="macro", labels=labels[:3])
    assert scores["macro_f1"] == round(100 * macro, 2)
    assert "span_f1" not in scores
    assert scores["confusion"]["matrix"] == sk.confusion_matrix(truth, found).tolist()


def test_sentences_of_other_lengths_and_none_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths differ"):
        tagging([["O"]], [["O", "O"]], BIO)
    with pytest.raises(UserError, match="no rows"):
        tagging([], [], BIO)
