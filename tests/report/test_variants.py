"""Rows and templates said otherwise."""

from __future__ import annotations

import random

import pytest

from foreword.data.row import Row
from foreword.report.variants import (
    changed_rows,
    is_english,
    misspelled,
    other_templates,
    reworded,
    shortened,
)


def test_a_slip_of_the_finger_leaves_a_text_nearly_as_it_is() -> None:
    text = "the parcel never arrived at our house"
    for seed in range(30):
        found = misspelled(text, random.Random(seed))
        assert found != text
        assert abs(len(found) - len(text)) <= 1
        assert found.split()[0] == "the"  # short words have none
    assert misspelled("a it 12", random.Random(0)) == "a it 12"


def test_half_of_the_words_are_kept() -> None:
    assert shortened("one two three four five", random.Random(0)) == "one two three"
    assert shortened("酒店很好吃", random.Random(0)) == "酒店很"


def test_other_words_say_the_same() -> None:
    found = reworded("Great movie, but don't buy it", random.Random(0))
    assert "onderful film, yet do not purchase it" in found


def test_only_english_is_reworded() -> None:
    assert is_english(["this is the film of it"])
    assert not is_english(["酒店很好", "das war ein guter Film"])


@pytest.mark.parametrize(
    "text",
    [
        "酒店服务态度很好，房间也很干净。",
        "배송이 너무 늦게 도착했습니다",
        "とてもおいしい",
    ],
)
def test_a_text_without_letters_or_in_another_script_is_not_damaged(text: str) -> None:
    for seed in range(10):
        assert misspelled(text, random.Random(seed)) == text
        assert reworded(text, random.Random(seed)) == text
        assert text.startswith(shortened(text, random.Random(seed)))


def test_of_mixed_texts_only_words_of_letters_are_misspelled() -> None:
    for seed in range(10):
        found = misspelled("我买了iPhone手机", random.Random(seed))
        assert found == "我买了iPhone手机"  # it is one word with signs of Chinese
        found = misspelled("我买了 iPhone 手机", random.Random(seed))
        assert found.split()[::2] == ["我买了", "手机"]
        assert found.split()[1] != "iPhone"


def test_an_opening_leaves_names_and_the_first_person_as_they_are() -> None:
    for text in ("NASA has a film", "I like it", "I'm here"):
        assert reworded(text, random.Random(1)).split(", ", 1)[1][0] == text[0]


def test_the_same_seed_changes_rows_alike_and_nothing_else_of_them() -> None:
    rows = [Row({"text": "the parcel is lost", "label": "delivery", "n": 3}, "a:1")]
    one, two = (changed_rows(rows, ["text"], misspelled, seed=4) for _ in range(2))
    assert one[0].fields == two[0].fields
    assert one[0].fields["label"] == "delivery"
    assert one[0].where == "a:1"


def test_templates_are_said_otherwise_and_keep_their_fields() -> None:
    found = other_templates('[soft:2]Review: {Text}\nSo [[it]] is: [soft:"It Was"]')
    assert found["template in one line"] == '[soft:2]Review: {Text} So [[it]] is: [soft:"It Was"]'
    assert found["template in lower case"] == (
        '[soft:2]review: {Text}\nso [[it]] is: [soft:"It Was"]'
    )
    assert found["template without colons"] == '[soft:2]Review {Text}\nSo [[it]] is [soft:"It Was"]'
    assert other_templates("{text} :") == {}
