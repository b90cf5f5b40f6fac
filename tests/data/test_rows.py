"""Rows in: the same rows, whatever holds them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import polars
import pytest

from foreword.data.bad_rows import BadRows
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.shapes import require
from foreword.errors import UserError

RECORDS = [{"text": "a film", "label": "good"}, {"text": "a bore", "label": "bad"}]


def fields(rows: list[Row]) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in rows]


def test_a_path_dicts_rows_and_tables_give_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    held: list[Any] = [
        path,
        str(path),
        RECORDS,
        iter(RECORDS),
        [Row(record, "here:1") for record in RECORDS],
        pandas.DataFrame(RECORDS),
        polars.DataFrame(RECORDS),
        (["a film", "a bore"], ["good", "bad"]),
        (numpy.array(["a film", "a bore"]), pandas.Series(["good", "bad"])),
        ([{"text": "a film"}, {"text": "a bore"}], ("good", "bad")),
        (pandas.DataFrame({"text": ["a film", "a bore"]}), ["good", "bad"]),
        datasets.Dataset.from_list(RECORDS),
        datasets.Dataset.from_list(RECORDS, features=features),
    ]
    for source in held:
        assert fields(as_rows(source)) == RECORDS


def test_rows_in_memory_are_named_by_number_and_rows_keep_their_place() -> None:
    assert [row.where for row in as_rows(RECORDS, name="input")] == ["input 1", "input 2"]
    assert as_rows([Row(RECORDS[0], "f.jsonl:7")])[0].where == "f.jsonl:7"


def test_columns_are_read_by_other_names_and_shapes_become_canonical() -> None:
    (row,) = as_rows([{"review": "a film", "label": "good"}], columns={"text": "review"})
    assert row.fields == RECORDS[0]
    (row,) = as_rows([{"instruction": "Say it", "input": "now", "output": "it"}])
    assert (row.fields["prompt"], row.fields["completion"]) == ("Say it\nnow", "it")
    (row,) = as_rows([{"instruction": "Say it"}], targets=False)
    assert row.fields["prompt"] == "Say it"


TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
OWN: dict[str, dict[str, Any]] = {
    "a prompt": {"instruction": "Say it", "output": "it", "prompt": "### Say it"},
    "a prompt and a completion": {
        **{"instruction": "Say it", "input": "now", "output": "it"},
        **{"prompt": "### Say it", "completion": "IT"},
    },
    "a completion": {"instruction": "Say it", "output": "it", "completion": "IT"},
    "messages": {"conversations": [{"from": "human", "value": "Ha"}], "messages": TURNS},
    "no answer": {"instruction": "Say it", "prompt": "### Say it"},
}


@pytest.mark.parametrize("case", OWN)
@pytest.mark.parametrize("before", [[], [{"instruction": "a", "output": "b"}]])
def test_columns_of_ones_own_stay_and_are_read_alike_to_learn_and_to_answer(
    case: str, before: list[dict[str, Any]]
) -> None:
    given = OWN[case]
    first = before if "instruction" in given else []
    answered = as_rows([*first, given], targets=False)[-1].fields
    assert {name: answered[name] for name in given} == given
    if case != "no answer":
        assert as_rows([*first, given])[-1].fields == answered


def test_messages_of_ones_own_stay_in_a_row_whose_first_has_none() -> None:
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
    rows = as_rows([{"conversations": shared}, {"conversations": shared, "messages": TURNS[1:]}])
    assert [row.fields["messages"] for row in rows] == [TURNS, TURNS[1:]]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (7, r"rows are of type int; give a path, a list of dicts, \(texts, labels\), a pandas"),
        ({"text": "a"}, "rows are of type dict; give a path, a list of dicts"),
        (b"a film", "rows are of type bytes; give a path"),
        ((["a", "b"], ["good"]), "2 texts and 1 label; give as many labels as texts"),
        ("http://rows.example/a.csv", "a.csv: is an address, not a file; download it and give"),
        (["a film"], r"row 1 is of type str; give objects such as \{"),
        (pandas.DataFrame([["a", "b"]], columns=["text", "text"]), "two columns are named 'text'"),
        (datasets.DatasetDict(), r"rows are of type DatasetDict; pick one of its splits"),
    ],
)
def test_what_holds_no_rows_is_refused_in_one_line(source: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        as_rows(source)


def test_cells_that_are_empty_in_a_table_are_empty_and_numbers_are_plain() -> None:
    table = pandas.DataFrame({"text": ["a", None], "label": [1, 2], 7: [0.5, float("nan")]})
    assert fields(as_rows(table)) == [
        {"text": "a", "label": 1, "7": 0.5},
        {"text": None, "label": 2, "7": None},
    ]
    assert fields(as_rows((["a"], numpy.array([3])), fields=("review", "stars"))) == [
        {"review": "a", "stars": 3}
    ]
    assert type(as_rows((["a"], numpy.array([3])))[0].fields["label"]) is int


def test_rows_of_an_array_are_lists_that_a_task_refuses_or_reads() -> None:
    rows = as_rows((["a", "b"], numpy.array([["x", "z"], ["y", "z"]])))
    assert [row.fields["label"] for row in rows] == [["x", "z"], ["y", "z"]]
    with pytest.raises(UserError, match='row 1: field "text" is a list'):
        require(as_rows((numpy.zeros((2, 3)), ["a", "b"])), ["text"])


def test_an_error_carries_the_field_that_is_wrong() -> None:
    for record, field in (({"label": "x"}, "text"), ({"text": " "}, "text")):
        with pytest.raises(UserError) as caught:
            require(as_rows([record], name="input"), ["text"])
        assert caught.value.field == field
        assert str(caught.value).startswith("input 1: ")
    with pytest.raises(UserError) as caught:
        as_rows([{"messages": []}])
    assert caught.value.field == "messages"
    assert pickle.loads(pickle.dumps(caught.value)).field == "messages"


def test_bad_rows_are_left_out_and_delimiters_are_given(tmp_path: Path) -> None:
    path, bad = tmp_path / "a.csv", BadRows()
    path.write_text("text~label\na;b~x\nonly\nc~y\n", "utf-8")
    rows = as_rows(path, delimiter="~", on_bad=bad)
    assert [dict(row.fields) for row in rows] == [
        {"text": "a;b", "label": "x"},
        {"text": "c", "label": "y"},
    ]
    assert bad.places == [f"{path}:3"]
    rows = as_rows([{"q": "a"}, {"x": "b"}], columns={"text": "q"}, targets=False, on_bad=bad)
    assert ([row.fields["text"] for row in rows], bad.places[1:]) == (["a"], ["row 2"])
