"""The language of texts, full-width forms, and Chinese answers as CMRC 2018 counts them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.metrics.answers import answers, longest_run, matches
from foreword.metrics.generation import generation
from foreword.metrics.language import language_of, language_of_fields
from foreword.metrics.words import half_width, words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("我想退货", "zh"),
        ("請問幾時到貨？", "zh"),
        ("返品したいです", "ja"),
        ("ＡＢＣ", None),
        ("iPhone 的订单", "zh"),
        ("refund for order 三", None),
        ("订单 A1203 什么时候发货", "zh"),
        ("", None),
        ("Where is it?", None),
    ],
)
def test_the_script_tells_chinese_and_japanese(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_the_texts_of_rows_are_looked_through() -> None:
    turns = [
        {"role": "user", "content": "还没有收到货"},
        {"role": "assistant", "content": "马上查"},
    ]
    assert language_of_fields([{"messages": turns}]) == "zh"
    assert (
        language_of_fields([{"text": "还没有收到货，怎么回事", "label": "delay", "n": 3}]) == "zh"
    )
    assert language_of_fields([{"answers": ["长城", "万里长城"], "id": "q1"}]) == "zh"


def test_full_width_forms_are_those_of_unicode() -> None:
    import unicodedata

    for sign in map(chr, range(0xFF01, 0xFF5F)):
        assert half_width(sign) == unicodedata.normalize("NFKC", sign)
    assert half_width("１２％\u3000（ＩＢＭ）。") == "12% (IBM)。"
    assert words("第１２届 ＡＢＣ") == ["第", "12", "届", "abc"]


PIECES = st.lists(st.sampled_from("北京大学的"), max_size=7)


@given(PIECES, PIECES)
@settings(deadline=None)
def test_the_longest_run_is_the_longest_text_in_both(one: list[str], other: list[str]) -> None:
    whole, all_of = "".join(one), "".join(other)
    parts = {whole[i:j] for i in range(len(whole) + 1) for j in range(i, len(whole) + 1)}
    assert longest_run(one, other) == max(len(part) for part in parts if part in all_of)


@pytest.mark.parametrize(
    ("guess", "right", "exact", "f1"),
    [
        ("北京的大学", ["北京大学"], 0, 44.44),  # a run of 2: 2 of 5 said, 2 of 4 wanted
        ("大学在北京", ["北京大学"], 0, 44.44),
        ("１９９８年", ["1998年"], 100, 100),
        ("（北京）", ["北京"], 100, 100),
        ("上海", ["北京", "上海市"], 0, 80),
    ],
)
def test_chinese_answers_as_cmrc_counts(guess: str, right: list[str], exact: int, f1: int) -> None:
    for language in ("zh", None):
        found = answers([guess], [right], language=language)
        assert (found["exact_match"], found["f1"]) == (exact, f1)


def test_japanese_answers_count_every_character() -> None:
    assert answers(["学校の東京"], [["東京の学校"]])["f1"] == 100
    assert answers(["学校的东京"], [["东京的学校"]])["f1"] == 40


def test_full_width_forms_do_not_count_where_answers_are_compared() -> None:
    assert matches("ＩＢＭ", ["ibm"])
    found = generation(
        ["满３００元　减５０％"], [["满300元 减50%"]], scores=("exact_match", "rouge_l")
    )
    assert (found["exact_match"], found["rouge_l"]) == (100, 100)
