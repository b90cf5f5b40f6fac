"""Values as they are read, whatever holds them: types, nested questions, keys that stand twice."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foreword.data.read import read_rows
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.tasks.gold import answers_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fields(rows: list[Row]) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in rows]


def test_values_of_types_are_as_in_a_table() -> None:
    """Dates, decimals, arrays and tuples, from Parquet, pandas, and Python's own objects."""
    import numpy
    import pandas
    import polars
    import pyarrow
    import pyarrow.parquet

    day, now = datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3, 4)
    typed = {"text": "a", "label": day, "at": now, "price": Decimal("1.50"), "tags": ["x", "y"]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([typed]), "a.parquet")
    odd = {**typed, "tags": numpy.array(["x", "y"]), "at": pandas.Timestamp(now)}
    sources: list[Any] = [
        "a.parquet",
        pandas.DataFrame([odd]),
        polars.DataFrame([typed]),
        [odd],
        [{**typed, "tags": ("x", "y"), "text": numpy.str_("a")}],
    ]
    expected = {**typed, "label": "2024-01-02", "at": "2024-01-02 03:04:00", "price": "1.50"}
    for source in sources:
        assert fields(as_rows(source)) == [expected]
    empty = {"text": pandas.NA, "at": pandas.NaT}
    assert fields(as_rows([empty])) == [dict.fromkeys(empty)]
    numbers = {"label": numpy.int64(3), "score": numpy.float32(0.5), "is": numpy.bool_(True)}
    (row,) = as_rows([numbers])
    assert [type(value) for value in row.fields.values()] == [int, float, bool]


FILM = {
    "title": "Film",
    "paragraphs": [
        {
            "context": "It is a good film.",
            "qas": [
                {"id": 1, "question": "What?", "answers": [{"text": "a", "answer_start": 6}]},
                {"id": 2, "question": "How?", "answers": [], "is_impossible": True},
            ],
        },
        {"context": "No.", "qas": [{"id": 3, "question": "Is it?", "answers": ["No"]}]},
    ],
}
ASKED = [
    {
        "title": "Film",
        "context": "It is a good film.",
        "id": 1,
        "question": "What?",
        "answers": [{"text": "a", "answer_start": 6}],
    },
    {
        "title": "Film",
        "context": "It is a good film.",
        "id": 2,
        "question": "How?",
        "answers": [],
        "is_impossible": True,
    },
    {"title": "Film", "context": "No.", "id": 3, "question": "Is it?", "answers": ["No"]},
]


def test_questions_that_are_nested_in_documents_are_rows() -> None:
    Path("a.json").write_text(json.dumps({"version": "1.1", "data": [FILM]}), "utf-8")
    Path("a.jsonl").write_text(json.dumps(FILM) + "\n", "utf-8")
    sources: list[Any] = ["a.json", "a.jsonl", [FILM]]
    for source in sources:
        assert fields(as_rows(source)) == ASKED
    assert [row.where for row in read_rows("a.json")] == ["a.json:1", "a.json:2", "a.json:3"]
    assert [row.where for row in read_rows("a.jsonl")] == ["a.jsonl:1"] * 3
    passage = {"context": "No.", "qas": [{"question": "Is it?", "answers": ["No"]}]}  # MRQA
    assert fields(as_rows([passage])) == [
        {"context": "No.", "question": "Is it?", "answers": ["No"]}
    ]
    for named in ({"paragraphs": [{"title": "A"}, {"title": "B"}]}, {"qas": [{"asked": "Who?"}]}):
        assert fields(as_rows([{"text": "x", **named}])) == [{"text": "x", **named}]
    plain = {"text": "x", "qas": "none", "paragraphs": []}
    assert fields(as_rows([plain])) == [plain]


@pytest.mark.parametrize(
    "given",
    [
        [{"text": "a film", "answer_start": 6}, {"text": "film", "answer_start": 8}],
        {"text": ["a film", "film"], "answer_start": [6, 8]},
        ["a film", "film"],
        ["a film", {"text": "film"}],
    ],
)
def test_answers_of_every_shape(given: Any) -> None:
    assert answers_of(Row({"answers": given})) == ["a film", "film"]


def test_answers_without_texts_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        answers_of(Row({"answers": [{"answer_start": 1}]}, "f:1"))
    assert str(caught.value) == (
        'f:1: field "answers" is a list, expected a list of texts; it holds null; write that as '
        "text"
    )


def test_a_key_that_stands_twice_is_refused() -> None:
    Path("a.jsonl").write_text('{"text": "a"}\n{"text": "b", "text": "c"}\n', "utf-8")
    with pytest.raises(UserError) as caught:
        read_rows("a.jsonl")
    assert str(caught.value) == "a.jsonl:2: key 'text' is there twice; leave one out"
    errors: list[UserError] = []
    assert len(read_rows("a.jsonl", on_bad=errors.append)) == len(errors) == 1
    Path("a.json").write_text('[{"about": {"x": 1, "x": 1}}]', "utf-8")
    with pytest.raises(UserError, match=r"a\.json:1: key 'x' is there twice"):
        read_rows("a.json")
