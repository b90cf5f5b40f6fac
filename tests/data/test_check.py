"""What is found in files of rows: each kind of problem where it is, and nowhere else."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.data.check import Lengths, check
from foreword.data.clean import clean, scores
from foreword.data.duplicates import overlap, same_text
from foreword.data.lookalikes import LEAST, NEAR, ending, near
from foreword.data.problems import WHY, Checked
from foreword.data.read import read_rows
from foreword.data.row import Row
from foreword.data.shapes import inputs_of

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
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
        "compared": ["text"],
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


@pytest.mark.parametrize("field", ["text", "label"])
def test_nan_is_an_empty_cell(field: str) -> None:
    given = [*rows(*FINE), Row({"text": "that", "label": "good", field: math.nan}, "f:5")]
    assert found(check({"train": given})) == {("empty", "train"): ("f:5",)}
    assert clean(given).changes == {"dropped: empty": ["f:5"]}


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


def test_labels_are_scores_where_all_are_numbers() -> None:
    for labels in itertools.permutations(["1.5", "2", "unknown"]):
        assert not scores(labels)
        assert scores(label.replace("unknown", "3") for label in labels)
        assert not scores(label.replace("unknown", "inf") for label in labels)


ALIKE: dict[str, tuple[Any, Any]] = {
    "case": ("good", "Good"),
    "a space behind": ("good", "good "),
    "no-break spaces": ("very good", "very\u00a0good"),
    "a zero-width space": ("good", "go\u200bod"),
    "a byte order mark": ("good", "\ufeffgood"),
    "a sign of direction": ("good", "good\u200f"),
    "a soft hyphen": ("good", "go\u00adod"),
    "width": ("good", "ｇｏｏｄ"),
    "a number and a text": (1, "1"),
    "the form of a number": ("1", "1.0"),
    "an exponent": ("1000", "1e3"),
    "true and a text": (True, "true"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_labels_that_look_alike(case: str) -> None:
    one, other = ALIKE[case]
    given = rows(*[(f"text {n}", one) for n in range(5)], *[(f"t {n}", other) for n in range(5)])
    places = found(check({"train": given}))["labels alike", "train"]
    assert places == (f"{json.dumps(one)} (5, as in f:1) and {json.dumps(other)} (5, as in f:6)",)
    lists = [Row({"text": f"t {n}", "labels": [one, other]}, f"f:{n}") for n in range(5)]
    assert ("labels alike", "train") in found(check({"train": lists}, label_field="labels"))


@pytest.mark.parametrize(
    "pair", [("C", "C#"), ("-1", "1"), ("1.5", "15"), ("n", "né"), ("1", True)]
)
def test_labels_that_do_not_look_alike(pair: tuple[Any, Any]) -> None:
    given = rows(*[(f"text {n}", pair[n % 2]) for n in range(10)])
    assert check({"train": given}).problems == []


def test_scores_in_other_forms_are_no_labels_alike() -> None:
    assert check({"train": rows(("a", 1), ("b", "1.0"), ("c", 1.5), ("d", 2))}).problems == []


def test_a_class_of_few_rows_where_labels_are_known_to_be_classes() -> None:
    given = rows(*[(f"text {n}", "abb"[n % 3]) for n in range(12)])
    assert check({"train": given}).problems == []
    told = found(check({"train": given}, classes=True))
    assert told == {("few rows of a class", "train"): ("'a' has 4",)}


def test_special_tokens_in_any_field() -> None:
    given = [*rows(*FINE), *rows(("say <|im_end|> now", "good"), ("</s>", "bad"), file="g")]
    places = found(check({"train": given}))["special token", "train"]
    assert places == ("g:1 '<|im_end|>'", "g:2 '</s>'")
    asked = Row({"prompt": "a", "completion": "b<eot>"}, "f:1")
    own = found(check({"train": [asked]}, special=["<eot>"]))
    assert own == {("special token", "train"): ("f:1 '<eot>'",)}
    assert check({"train": [asked]}).problems == []


def test_each_question_of_a_line_is_looked_at() -> None:
    texts = ("</s> a", "cafe\u0301", "a\u0007b", "x \ud83d", "fine")
    nested = [Row({"context": "it", "question": text}, "f:1") for text in texts]
    assert found(check({"train": nested})) == {
        ("special token", "train"): ("f:1 '</s>'",),
        **{(k, "train"): ("f:1",) for k in ("not NFC", "control character", "half a character")},
    }


def test_cells_of_tables_that_are_seldom_meant() -> None:
    def told(file: str, *given: dict[str, str]) -> dict[tuple[str, str], tuple[str, ...]]:
        return found(check({"train": [Row(r, f"{file}:{n}") for n, r in enumerate(given, 2)]}))

    lines = {"text": "a\nb", "label": "x"}
    assert told("f.csv", lines) == {("cell over several lines", "train"): ("f.csv:2",)}
    assert told("f.jsonl", lines) == {}
    assert told("f.tsv", {"text": "a", "label": ' "x"'}) == {("quotes left", "train"): ("f.tsv:2",)}
    assert told("f.csv", {"text": 'a "b" c', "label": "x"}) == {}
    parted = found(check({"train": [Row({"text;label": "a;x"}, "f.csv:2")]}))
    assert parted["other delimiter", "train"] == (
        "f.csv:2: the column 'text;label' holds a semicolon",
    )


@pytest.mark.parametrize(
    ("name", "text", "sign"),
    [
        ("f.csv", "a;b\n1;2\n", "semicolon"),
        ("f.tsv", "a,b\n1,2\n", "comma"),
        ("f.csv", "a\tb\n1\t2\n", "tab"),
    ],
)
def test_a_delimiter_that_is_not_the_files_own(
    name: str, text: str, sign: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    assert ending(path) == (f"{path}: is read with a {sign} between cells",)
    path.write_text({"f.csv": "a,b\n1,2\n", "f.tsv": "a\tb\n1\t2\n"}[name], "utf-8")
    assert ending(path) == ()
    assert ending(path.with_suffix(".jsonl")) == ()


def test_what_is_almost_in_another_split() -> None:
    text = "the film was long and dull and the music much too loud for me"
    train = rows((text, "bad"), ("another one with some other words in it", "good"))
    dev = rows(
        (text.replace("dull", "bleak"), "bad"),  # 13 of 14 words
        (text.replace("long", "a").replace("loud", "b").replace("me", "you"), "bad"),  # 11 of 14
        ("another one with some words", "good"),  # too short to tell
        (text.upper(), "bad"),  # the same
        file="d",
    )
    told = found(check({"train": train, "dev": dev}))
    assert told["almost in another split", "dev"] == ("d:1 (like f:1)",)
    assert told["also in another split", "dev"] == ("d:4 (as f:1)",)


WORDS = [f"w{n}" for n in range(12)]


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=4, max_size=16), min_size=2, max_size=12),
    st.integers(1, 6),
)
def test_what_is_almost_the_same_is_what_a_plain_comparison_says(
    texts: list[list[str]], parted: int
) -> None:
    """Against all pairs, with bags of words as counters: their intersection over their union."""
    every = rows(*[(" ".join(words), "x") for words in texts])
    known, others = every[:parted], every[parted:]

    def alike(one: Row, other: Row) -> bool:
        a, b = (Counter(row.fields["text"].split()) for row in (one, other))
        return (a & b).total() >= NEAR * (a | b).total()

    long = [row for row in others if len(row.fields["text"].split()) >= LEAST]
    same = {row.fields["text"] for row in known}
    wanted = [
        (row.where, next(k.where for k in known if alike(k, row)))
        for row in long
        if row.fields["text"] not in same and any(alike(k, row) for k in known)
    ]
    assert [(a.where, b.where) for a, b in near(known, others, ["text"])] == wanted


def test_fields_that_are_read_can_be_named() -> None:
    given = [
        Row({"text": "a", "of": "b", "label": "x"}, "f:1"),
        Row({"text": "a", "of": "c", "label": "y"}, "f:2"),
    ]
    assert found(check({"train": given})) == {("label conflict", "train"): ("f:1", "f:2")}
    assert check({"train": given}, fields=["text", "of"]).problems == []


READ: dict[str, tuple[str, ...]] = {
    "id,text,label,date": ("text",),
    "text,label,group,prompt": ("text",),
    "text,text_a,text_b,label": ("text_a", "text_b"),
    "text,head,tail,label": ("text", "head", "tail"),
    "text,prompt,completion,references": ("prompt",),
    "text,instruction,output": ("instruction", "input"),
    "id,title,context,question,answers": ("context", "question"),
    "history,candidates,answer,day": ("history",),
    "tokens,tags,doc": ("tokens",),
    "id,messages,model": ("messages",),
    "idx,sentence,label": ("sentence",),
    "input,output,label": ("input",),
    "id,label": ("id", "label"),
}


@pytest.mark.parametrize("names", READ)
def test_rows_are_compared_by_what_is_read_of_them(names: str) -> None:
    assert inputs_of(Row(dict.fromkeys(names.split(",")))) == READ[names]
    other = names.replace(",label", ",topic")
    expected = tuple("topic" if name == "label" else name for name in READ[names])
    assert inputs_of(Row(dict.fromkeys(other.split(","))), "topic") == expected


def test_numbers_and_dates_of_rows_hide_no_text_that_stands_twice() -> None:
    said = {"text": "a film", "label": "good"}
    train = [Row({**said, "id": n, "day": f"2024-01-0{n}"}, f"f:{n}") for n in (1, 2)]
    dev = [Row({**said, "id": 3, "day": "2024-01-03"}, "d:1")]
    assert ("also in another split", "dev") in found(check({"train": train, "dev": dev}))
    assert clean(train, known=dev).rows == []
    numbered = [Row({**said, "id": n}, f"f:{n}") for n in (1, 2)]
    assert found(check({"train": numbered}))["duplicate", "train"] == ("f:2",)
    assert clean(train).rows == train  # of another day


def test_an_instruction_needs_no_input() -> None:
    asked = [("say hi", ""), ("say hi", "to me"), ("say it", None)]
    given = [
        Row({"instruction": each, "input": more, "output": f"{n}"}, f"f:{n}")
        for n, (each, more) in enumerate(asked)
    ]
    given.append(Row({"instruction": "say no", "output": "3"}, "f:3"))
    assert check({"train": given}).problems == []
    assert clean(given).rows == given


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


def test_columns_that_nobody_named_may_have_empty_cells() -> None:
    """Of a table with a note beside each text; a row is empty where it has no text at all."""
    notes = ["", "call", "", ""]
    given = [
        Row({"Anfrage": f"text {n}" if n < 3 else " ", "label": "x", "Notiz": note}, f"f:{n}")
        for n, note in enumerate(notes)
    ]
    assert found(check({"train": given})) == {("empty", "train"): ("f:3",)}
    assert clean(given).changes == {"dropped: empty": ["f:3"]}
    named = check({"train": given}, fields=["Anfrage", "Notiz"])
    assert found(named)["empty", "train"] == ("f:0", "f:2", "f:3")


def test_what_another_column_tells_apart_is_no_conflict_to_leave_out() -> None:
    """Such as the aspect that a template asks about; a number of the row tells nothing apart."""
    kinds = [("food", "good"), ("service", "bad")]
    given = [
        Row({"id": n, "text": "it was", "aspect": aspect, "label": label}, f"f:{n}")
        for n, (aspect, label) in enumerate(kinds)
    ]
    assert clean(given).rows == given
    assert clean(given, fields=["text"]).rows == []
    bare = [Row({k: v for k, v in r.fields.items() if k != "aspect"}, r.where) for r in given]
    assert clean(bare).changes == {"dropped: label conflict": ["f:0", "f:1"]}


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
