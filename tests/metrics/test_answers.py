"""Exact match and F1 of answers, by hand and against the rules of SQuAD and MLQA."""

from __future__ import annotations

import pytest

from foreword.errors import UserError
from foreword.metrics.answers import answers, matches, normal_words


@pytest.mark.parametrize(
    ("guess", "right", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 100, 100),
        ("in the Eiffel Tower", ["Eiffel Tower"], 0, 80),  # 2 of 3 said, 2 of 2 wanted
        ("the the cat", ["a cat"], 100, 100),
        ("cat cat", ["cat"], 0, 66.67),  # a word counts as often as it is in both
        ("", ["cat"], 0, 0),
        ("the", ["a"], 100, 100),  # nothing is left of either
        ("dog", ["cat", "a dog", "dogs"], 100, 100),
        ("U.S.A.", ["usa"], 100, 100),
        ("1–2", ["12"], 0, 0),  # SQuAD takes ASCII punctuation out, and no other
    ],
)
def test_english_as_squad_counts(guess: str, right: list[str], exact: float, f1: float) -> None:
    found = answers([guess], [right])
    assert (found["exact_match"], found["f1"]) == (exact, f1)


@pytest.mark.parametrize(
    ("guess", "right", "exact", "f1"),
    [
        ("長城。", ["長城"], 100, 100),
        ("萬里長城", ["長城"], 0, 66.67),  # 2 of 4 said, 2 of 2 wanted
        ("在 IBM 公司", ["IBM公司"], 0, 85.71),  # words and characters: 3 of 4, 3 of 3
        ("1–2", ["12。"], 100, 100),  # MLQA takes any punctuation out
    ],
)
def test_chinese_by_character(guess: str, right: list[str], exact: float, f1: float) -> None:
    found = answers([guess], [right], language="zh")
    assert (found["exact_match"], found["f1"]) == (exact, f1)
    if any(char > "\u3400" for char in right[0]):
        assert answers([guess], [right]) == found


@pytest.mark.parametrize(
    ("language", "guess", "right"),
    [
        ("de", "Der Rhein", "dem Rhein"),
        ("es-MX", "la casa de las flores", "Casa de flores"),
        ("vi", "cái bàn", "những bàn"),
        ("ar", "الكتاب", "كتاب"),
    ],
)
def test_articles_of_other_languages_as_in_mlqa(language: str, guess: str, right: str) -> None:
    assert answers([guess], [[right]], language=language)["exact_match"] == 100
    assert matches(guess, [right], language)
    assert not matches(guess, [right], "fr")


def test_a_language_is_given_or_seen() -> None:
    assert normal_words("the cat", "fr") == ["the", "cat"]
    assert answers(["a cat"], [["cat"]], language="en-GB")["exact_match"] == 100
    assert answers(["a cat"], [["cat"]], language="de")["exact_match"] == 0


def test_means_and_intervals() -> None:
    found = answers(["cat", "dog"] * 20, [["cat"]] * 40)
    assert found["exact_match"] == found["f1"] == 50
    low, high = found["intervals"]["f1"]
    assert 25 < low < 50 < high < 75
    assert found["rows"] == 40


def test_wrong_input() -> None:
    with pytest.raises(UserError, match="no rows"):
        answers([], [])
    with pytest.raises(UserError, match="row 2 has no answer"):
        answers(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="lengths differ"):
        answers(["a"], [])
