"""Answers to questions: exact match and F1 as SQuAD, MLQA and CMRC 2018 count them."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from foreword.errors import UserError
from foreword.metrics.language import code, language_of
from foreword.metrics.resample import bootstrap, check_rows
from foreword.metrics.words import CJK, half_width

ARTICLES = {
    "ar": "ال",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
}
"""What counts as an article, by language, as MLQA has it: Arabic's wherever it stands."""


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
    characters of Chinese and Japanese; in Chinese only those of the longest run that is in both
    count (Cui et al. 2019, CMRC 2018, arXiv:1810.07366). Without ``language`` a row's references
    tell it: Chinese or Japanese by their script, and else English. Raises `UserError` if there are
    no rows or a row has no reference, and `ValueError` if the lengths differ.
    """
    check_rows(len(predictions), len(references))
    exact, shared = [], []
    for number, (guess, own) in enumerate(zip(predictions, references, strict=True), start=1):
        if not own:
            raise UserError(f"row {number} has no answer: give every row at least one")
        spoken = answers_language(own, language)
        said = normal_words(guess, spoken)
        right = [normal_words(text, spoken) for text in own]
        exact.append(float(said in right))
        common = longest_run if spoken == "zh" else _in_both
        shared.append(max(_f1(said, words, common) for words in right))
    found = {"exact_match": bootstrap(exact, seed, resamples)}
    found["f1"] = bootstrap(shared, seed, resamples)
    return {
        "rows": len(exact),
        **{name: round(each.value, 2) for name, each in found.items()},
        "intervals": {name: each.bounds() for name, each in found.items()},
    }


def matches(answer: str, references: Sequence[str], language: str | None = None) -> bool:
    """Return whether an answer has the words of one of the references."""
    spoken = answers_language(references, language)
    return normal_words(answer, spoken) in [normal_words(text, spoken) for text in references]


def answers_language(references: Sequence[str], language: str | None = None) -> str:
    """Return the language by which a row's answers are compared: the one given, or their own."""
    if language is not None:
        return code(language)
    text = "".join(references)
    if not CJK.search(text):
        return "en"
    return language_of("".join(CJK.findall(text))) or "zh"


def normal_words(text: str, language: str) -> list[str]:
    """Return the words by which answers are compared, without the articles of their language.

    English, as SQuAD 1.1 has it: lower case, without ASCII punctuation. Others, as MLQA: lower
    case, without any punctuation, each Chinese or Japanese character a word. Full-width letters,
    digits and signs are read as the usual ones.

    >>> normal_words("The Great Wall!", "en"), normal_words("長城。 Wall", "zh")
    (['great', 'wall'], ['長', '城', 'wall'])
    """
    text = half_width(text).lower()
    signs = string.punctuation.__contains__ if language == "en" else _is_punctuation
    plain = "".join(char for char in text if not signs(char))
    if language in ARTICLES:
        plain = re.sub(ARTICLES[language], " ", plain)
    return (plain if language == "en" else CJK.sub(r" \g<0> ", plain)).split()


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _f1(said: list[str], right: list[str], common: Callable[[list[str], list[str]], int]) -> float:
    """The harmonic mean of precision and recall of words; of no words, whether both have none."""
    if not said or not right:
        return float(said == right)
    return 2 * common(said, right) / (len(said) + len(right))


def _in_both(said: list[str], right: list[str]) -> int:
    """Count the words that are in both, each as often as it is in both."""
    return sum((Counter(said) & Counter(right)).values())


def longest_run(said: list[str], right: list[str]) -> int:
    """Count the words of the longest run that is in both.

    >>> longest_run(list("在北京大学"), list("北京的大学"))
    2
    """
    ends = [0] * (len(right) + 1)  # ends[j]: the run that ends before word j of ``right``
    most = 0
    for word in said:
        ends = [0] + [ends[j] + 1 if word == other else 0 for j, other in enumerate(right)]
        most = max(most, *ends)
    return most
