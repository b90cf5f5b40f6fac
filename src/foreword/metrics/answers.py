"""Answers to questions: exact match and F1 over words, as SQuAD and MLQA count them."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from foreword.errors import UserError
from foreword.metrics.resample import bootstrap, check_rows
from foreword.metrics.words import CJK, code


def answers(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    language: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Exact match and F1 of answers, each row's best over its references, in percent points.

    Texts are compared as :func:`normal_words` has them (Rajpurkar et al. 2016, arXiv:1606.05250;
    outside English Lewis et al. 2020, MLQA, arXiv:1910.07475). ``f1`` is over words, and over
    characters of Chinese and Japanese. Without ``language`` a row is English unless one of its
    references holds such characters. Raises `UserError` if there are no rows or a row has no
    reference, and `ValueError` if the lengths differ.
    """
    check_rows(len(predictions), len(references))
    exact, shared = [], []
    for number, (guess, own) in enumerate(zip(predictions, references, strict=True), start=1):
        if not own:
            raise UserError(f"row {number} has no answer: give every row at least one")
        english = is_english(own, language)
        said, right = normal_words(guess, english), [normal_words(text, english) for text in own]
        exact.append(float(said in right))
        shared.append(max(_f1(said, words) for words in right))
    found = {"exact_match": bootstrap(exact, seed, resamples)}
    found["f1"] = bootstrap(shared, seed, resamples)
    return {
        "rows": len(exact),
        **{name: round(each.value, 2) for name, each in found.items()},
        "intervals": {name: each.bounds() for name, each in found.items()},
    }


def matches(answer: str, references: Sequence[str], language: str | None = None) -> bool:
    """Return whether an answer has the words of one of the references."""
    english = is_english(references, language)
    return normal_words(answer, english) in [normal_words(text, english) for text in references]


def is_english(references: Sequence[str], language: str | None = None) -> bool:
    """Tell whether a row's answers are compared as English ones."""
    if language is not None:
        return code(language) == "en"
    return not any(CJK.search(text) for text in references)


def normal_words(text: str, english: bool) -> list[str]:
    """Return the words by which answers are compared.

    English, as SQuAD 1.1 has it: lower case, without ASCII punctuation, without articles. Others,
    as MLQA: lower case, without any punctuation, each Chinese or Japanese character a word.

    >>> normal_words("The Great Wall!", True), normal_words("長城。 Wall", False)
    (['great', 'wall'], ['長', '城', 'wall'])
    """
    if english:
        plain = "".join(char for char in text.lower() if char not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", plain).split()
    plain = "".join(char for char in text.lower() if not _is_punctuation(char))
    return CJK.sub(lambda found: f" {found[0]} ", plain).split()


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _f1(said: list[str], right: list[str]) -> float:
    """The harmonic mean of precision and recall of words; of no words, whether both have none."""
    if not said or not right:
        return float(said == right)
    common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right))
