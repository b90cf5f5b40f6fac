"""Words are rouge-score's on ASCII, and no letter is lost in other scripts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.tokenize import tokenize as rouge_tokenize

from foreword.errors import UserError
from foreword.metrics.language import code
from foreword.metrics.words import words


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


@pytest.mark.parametrize(
    ("given", "own"), [("zh", "zh"), ("en-GB", "en"), ("zh_Hans_CN", "zh"), ("DE", "de")]
)
def test_the_code_of_a_language(given: str, own: str) -> None:
    assert code(given) == own


@pytest.mark.parametrize("given", ["Chinese", "", "z", "e1", "en-", "en de"])
def test_what_is_no_code_of_a_language(given: str) -> None:
    with pytest.raises(UserError, match=f"`language={given}`: give a language code"):
        code(given)


@given(st.text())
@settings(deadline=None)
def test_words_lose_no_letter(text: str) -> None:
    kept = "".join(words(text))
    assert [c for c in kept if c.isalpha()] == [c for c in text.lower() if c.isalpha()]
