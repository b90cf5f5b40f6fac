"""What is found in files of rows: each kind of problem where it is, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.data.check import WHY, Checked, Lengths, check
from foreword.data.clean import clean
from foreword.data.duplicates import overlap, same_text
from foreword.data.read import read_rows
from foreword.data.row import Row

SHARED = Path("/work/shared/data")
FINE = [("a film", "good"), ("no film", "bad"), ("an old film", "good"), ("a dull one", "bad")]


def rows(*given: tuple[Any, Any], file: str = "f") -> list[Row]:
    return [
        Row({"text": text, "label": label}, f"{file}:{n}")
        for n, (text, label) in enumerate(given, 1)
    ]


def found(checked: Checked) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(problem.kind, problem.split): problem.places for problem in checked.problems}


def test_nothing_is_wrong_with_what_is_fine() -> None:
    checked = check({"train": rows(*FINE), "dev": rows(("it was", "good"), ("it is", "bad"))})
    assert checked.problems == []
    assert checked.splits["train"] == {
        "rows": 4,
        "shape": "text,label",
        "fields": ["text", "label"],
        "length": {"unit": "characters", "median": 7, "95%": 10, "longest": 11},
        "labels": {"bad": 2, "good": 2},
    }


WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "empty": (("  ", "good"), ("f:5",)),
    "label conflict": (("A film!", "bad"), ("f:1", "f:5")),
    "duplicate": (("A  FILM.", "good"), ("f:5",)),
    "not NFC": (("cafe\u0301", "good"), ("f:5",)),
    "control character": (("a\u0007b", "good"), ("f:5",)),
    "half a character": (("x \ud83d y", "good"), ("f:5",)),
    "long": (("x" * 2049, "good"), ("f:5",)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_kind_is_found_alone(kind: str) -> None:
    wrong, places = WRONG[kind]
    assert found(check({"train": rows(*FINE, wrong)})) == {(kind, "train"): places}


def test_rows_that_lack_a_field_or_its_answer() -> None:
    given = [*rows(*FINE), Row({"label": "good"}, "f:5"), Row({"text": "that"}, "f:6")]
    assert found(check({"train": given})) == {("missing field", "train"): ("f:5", "f:6")}
    given = [*rows(*FINE), Row({"text": "that", "label": None}, "f:5")]
    assert found(check({"train": given})) == {("empty", "train"): ("f:5",)}


def test_a_conversation_that_breaks_its_rules() -> None:
    turn = {"role": "user", "content": "hi"}
    good = Row({"messages": [turn, {"role": "assistant", "content": "ho"}]}, "f:1")
    bad = Row({"messages": [{"role": "nobody", "content": "he"}]}, "f:2")
    assert found(check({"train": [good, bad]})) == {("wrong shape", "train"): ("f:2",)}


def test_a_row_in_three_splits_is_named_by_the_first() -> None:
    train, dev, test = (rows(("a film", "good"), file=file) for file in "tds")
    again = found(check({"train": train, "dev": dev, "test": test}))
    assert again["also in another split", "dev"] == ("d:1 (as t:1)",)
    assert again["also in another split", "test"] == ("s:1 (as t:1)",)


def test_splits_beside_one_another() -> None:
    dev = rows(("A film", "good"), ("seen?", "new"), file="d")
    assert found(check({"train": rows(*FINE), "dev": dev})) == {
        ("also in another split", "dev"): ("d:1 (as f:1)",),
        ("label not in train", "dev"): ("d:2 'new'",),
        ("label in train only", "train"): ("'bad'",),
    }


def test_other_answers_to_one_prompt_are_no_conflict() -> None:
    pairs = [("say hi", "hi"), ("say hi", "hello"), ("say hi", "Hi!")]
    given = [Row({"prompt": p, "completion": c}, f"f:{n}") for n, (p, c) in enumerate(pairs)]
    assert found(check({"train": given})) == {("duplicate", "train"): ("f:2",)}


def test_scores_are_no_classes() -> None:
    given = rows(("a", 0.5), ("a", 1.0), *[(f"{n}", 1.0) for n in range(20)])
    assert check({"train": given}).problems == []
    whole = rows(*[(f"text {n}", "ham") for n in range(20)], ("spam it", "spam"))
    (problem,) = check({"train": whole}).problems
    assert problem.places == ("'ham' has 20 of 21 rows, 'spam' 1",)


def test_fields_that_are_read_can_be_named() -> None:
    given = [
        Row({"text": "a", "id": 1, "label": "x"}, "f:1"),
        Row({"text": "a", "id": 2, "label": "y"}, "f:2"),
    ]
    assert check({"train": given}).problems == []
    named = check({"train": given}, fields=["text"])
    assert found(named) == {("label conflict", "train"): ("f:1", "f:2")}


def test_lengths_are_counted_as_told() -> None:
    lengths = Lengths(lambda text: len(text.split()), "words", 3)
    checked = check({"train": rows(*FINE, ("one of four words", "bad"))}, lengths=lengths)
    assert checked.splits["train"]["length"]["longest"] == 4
    assert found(checked) == {("long", "train"): ("f:5",)}


def test_every_kind_says_why() -> None:
    assert all(why and level in ("error", "warning") for level, why in WHY.values())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It's GOOD.", "its good", True),
        ("cafe\u0301", "Caf\u00e9", True),
        ("你好，世界！", "你好世界", True),
        ("\u0915\u093f", "\u0915\u093e", False),  # vowel signs of Hindi are letters' own
        ("?", "!", False),
        ("C++", "C", False),
        ("C#", "C", False),
        ("", " ", True),
        ("the price is 1.5", "the price is 15", False),
        ("the price is 1,5", "the price is 15.", False),
        ("the price is 15!", "The price, is 15.", True),
        ("it is -3 degrees", "it is 3 degrees", False),
        ("it is -3 degrees", "it is \u22123 degrees", True),
        ("-3", "3", False),
        ("- 3 apples", "3 apples", True),  # an item of a list
        ("a loss of -$5", "a loss of $5", False),
        ("covid-19 is over", "Covid 19 is over", True),
        ("it is .5", "it is 5", False),
        ("wait ...5 more", "wait 5 more", True),
        ("add 1 2", "add 12", False),
        ("1 , 000", "1,000", True),
        ("at 12:30", "at 1230", False),
        ("from 3-5", "from 35", False),
        ("from 3\u20135", "from 3-5", True),
        ("1/2 of it", "12 of it", False),
        ("5% of it", "5 of it", False),
        ("5 % of it", "5\uff05 of it", True),
        ("it costs $5", "it costs 5", False),
        ("it costs $5", "it costs \u20ac5", False),
        ("2*x", "2x", False),
        ("a != b", "a = b", False),
        ("return !done", "return done", False),
        ("great :)", "great :(", False),
        ("great :)", "great", False),
        ("great :-(", "Great!:-(", True),
        ("see http://a", "see http a", True),
        ("\U0001f44d", "\U0001f44e", False),
        ("\u2764", "\u2764\ufe0f!", True),
        ("\uff11\uff0e\uff15\u5143", "1.5\u5143", True),
        ("1.5\u5143", "15\u5143", False),
        ("\u3002", "\uff01", False),
        ("\u300c\u597d\u300d\u3002", "\u597d", True),
        ("5\u200b6", "56", True),
    ],
)
def test_texts_that_say_the_same(one: str, other: str, same: bool) -> None:
    assert (same_text(one) == same_text(other)) is same


def test_rows_that_differ_in_numbers_are_all_kept() -> None:
    given = rows(
        ("the price is 1.5", "cheap"),
        ("the price is 15", "dear"),
        ("it is -3 degrees", "cold"),
        ("it is 3 degrees", "mild"),
        ("fine", "mild"),
    )
    assert clean(given).rows == given
    assert {p.kind for p in check({"train": given, "test": given[:1]}).problems} == {
        "also in another split",
        "label in train only",
    }


def test_overlap_looks_at_all_fields() -> None:
    known = [Row({"text_a": "a", "text_b": "b"}, "k:1")]
    pairs = [Row({"text_a": "A", "text_b": b}, f"f:{n}") for n, b in enumerate("bc")]
    assert [row.where for row in overlap(pairs, known, ["text_a", "text_b"])] == ["f:0"]


# Cleaning ----------------------------------------------------------------------------------------


def test_what_is_cleaned_has_nothing_left_to_clean() -> None:
    wrong = [row for row, _ in WRONG.values()]
    given = rows(*FINE, *wrong)
    made = clean(given, known=rows(("an OLD film", "good")))
    assert {kind: len(places) for kind, places in made.changes.items()} == {
        "mended: NFC, control characters": 3,
        "dropped: empty": 1,
        "dropped: label conflict": 3,
        "dropped: in another file": 1,
    }
    texts = [row.fields["text"] for row in made.rows]
    assert texts == ["no film", "a dull one", "caf\u00e9", "ab", "x  y", "x" * 2049]
    assert {p.kind for p in check({"train": made.rows}).problems} == {"long"}
    assert clean(made.rows).changes == {}
    assert given[7].fields["text"] == "cafe\u0301"  # what was read is untouched


def test_new_lines_and_lists_are_kept() -> None:
    row = Row({"messages": [{"role": "user", "content": "a\n\tb\r\n"}]}, "f:1")
    (made,) = clean([row]).rows
    assert made.fields["messages"] == [{"role": "user", "content": "a\n\tb\n"}]


def test_of_duplicates_the_first_is_kept() -> None:
    made = clean(rows(("b", "x"), ("B!", "x"), ("c", "y")))
    assert [row.where for row in made.rows] == ["f:1", "f:3"]
    assert made.changes == {"dropped: duplicate": ["f:2"]}


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_leaks_that_are_known_of_shared_data() -> None:
    """The count stands in the data's own notes."""
    splits = {s: read_rows(SHARED / "sst2" / f"{s}.jsonl") for s in ("train", "test")}
    assert len(overlap(splits["test"], splits["train"], ["text"])) == 2
