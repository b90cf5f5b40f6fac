"""Lists that a table holds as texts, whatever wrote them, for every task that reads a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.data.lists import parsed
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.tasks.candidates import candidates_of
from foreword.tasks.generate import references
from foreword.tasks.gold import answers_of, labels_of, texts_of

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=4)


@settings(max_examples=60)
@given(TEXTS)
def test_what_python_json_and_numpy_write_is_read_as_it_was(texts: list[str]) -> None:
    written = [repr(texts), json.dumps(texts), json.dumps(texts, indent=1, ensure_ascii=False)]
    array = numpy.empty(len(texts), dtype=object)
    array[:] = texts
    written += [str(array), repr(array)]
    written += [repr(tuple(texts))] if len(texts) > 1 else []
    for text in written:
        assert parsed(text) == texts
    assert parsed(str({"text": array, "start": numpy.arange(3)})) == {
        "text": texts,
        "start": [0, 1, 2],
    }


@settings(max_examples=30)
@given(st.lists(st.integers(-99, 99), max_size=40))
def test_numbers_in_lists(numbers: list[int]) -> None:
    for text in (str(numbers), str(numpy.array(numbers, dtype=int))):
        assert parsed(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "warm, funny",
        "[warm, funny]",
        "['a' 'b' ... 'z']",
        "['a''b']",
        "['a', 'b'",
        "['a', open('x')]",
        "(1)",
        "('a')",
        "( a )",
        "[ laughter ] yes",
        "{a}",
        "[" * 9999 + "]" * 9999,
        "5",
        "",
    ],
)
def test_other_texts_are_no_lists(text: str) -> None:
    assert parsed(text) is None


def row(**fields: Any) -> Row:
    return Row(fields, "f.csv:2")


def readings(texts: list[str]) -> list[str]:
    objects = numpy.array(texts, dtype=object)
    return [repr(texts), json.dumps(texts), str(numpy.array(texts)), repr(objects)]


def test_every_task_reads_the_list_that_a_text_is() -> None:
    for text in readings(["a", "I'm b"]):
        assert labels_of(row(labels=text), "labels") == ["a", "I'm b"]
        assert texts_of(row(tags=text), "tags") == ["a", "I'm b"]
        assert answers_of(row(answers=text)) == ["a", "I'm b"]
        assert references(row(references=text), "x") == ["a", "I'm b"]
        for right in ("I'm b", "['I\\'m b']"):
            found = candidates_of(row(candidates=text, answer=right), (), 9)
            assert (found.texts, found.right) == (("a", "I'm b"), {1})
    squad = str({"text": numpy.array(["a"], dtype=object), "answer_start": numpy.array([3])})
    assert answers_of(row(answers=squad)) == ["a"]
    assert labels_of(row(labels="[]"), "labels") == []
    turns = [{"role": "user", "content": "it's"}, {"role": "assistant", "content": 'a "b"'}]
    for text in (repr(turns), json.dumps(turns), str(numpy.array(turns, dtype=object))):
        assert as_rows([{"messages": text}])[0].fields["messages"] == turns
    sharegpt = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]
    (read,) = as_rows([{"conversations": str(sharegpt)}])
    assert [turn["content"] for turn in read.fields["messages"]] == ["hi", "yes"]


def test_texts_that_are_no_lists_are_read_as_before() -> None:
    assert labels_of(row(labels="warm, funny"), "labels") == ["warm", "funny"]
    assert texts_of(row(tokens="[ laughter ] yes [noise]"), "tokens") == [
        *("[", "laughter", "]", "yes", "[noise]")
    ]
    assert answers_of(row(answers="[1984]")) == ["[1984]"]
    assert answers_of(row(answers="a, b")) == ["a, b"]
    assert texts_of(row(tags="O B-PER"), "tags") == ["O", "B-PER"]


@pytest.mark.parametrize(
    "text", ["[warm, funny]", "['a' 'b' ... 'z']", "['a', 'b'  funny]", "[O, B-PER]", "[1 2 ... 3]"]
)
def test_lists_that_cannot_be_read_are_refused(text: str) -> None:
    for read in (labels_of, texts_of):
        with pytest.raises(UserError) as caught:
            read(row(x=text), "x")
        assert str(caught.value) == (
            'f.csv:2: field "x" is a list written as text that cannot be read; write it as '
            '["a", "b"]'
        )


def test_numbers_are_refused_as_in_json() -> None:
    for text in ("[0, 1, 1]", "[0 1 1]"):
        for read in (labels_of, texts_of):
            with pytest.raises(UserError, match='field "x" holds what is no text'):
                read(row(x=text), "x")


def test_what_pandas_writes_is_read_as_its_table_was(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {"text": ["a film", "b"], "labels": [["warm", "it's"], numpy.array(["x", "y"])]}
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    for source in (table, tmp_path / "a.csv"):
        assert [labels_of(each, "labels") for each in as_rows(source)] == [
            ["warm", "it's"],
            ["x", "y"],
        ]
