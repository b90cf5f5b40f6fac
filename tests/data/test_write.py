"""Rows are written in the format that an ending names, and read back as they were."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from foreword.data.bad_rows import BadRows
from foreword.data.read import read_rows
from foreword.data.write import check_writable, write_rows
from foreword.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"id": "01", "text": 'über "alles", \n; und\tso'},
    {"id": "2", "text": "", "label": "x"},
    {"id": "3.10", "text": "a", "label": None, "n": 0.25, "yes": True},
]
TEXTS = [
    {"id": "01", "text": 'über "alles", \n; und\tso', "label": "", "n": "", "yes": ""},
    {"id": "2", "text": "", "label": "x", "n": "", "yes": ""},
    {"id": "3.10", "text": "a", "label": "", "n": "0.25", "yes": "true"},
]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".CSV"])
def test_a_table_has_all_columns_and_texts_as_they_were(ending: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"a{ending}", ROWS)
    assert [dict(row.fields) for row in read_rows(path)] == TEXTS
    sign = "\t" if ending == ".tsv" else ","
    assert path.read_bytes().startswith(sign.join(["id", "text", "label", "n", "yes"]).encode())


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_what_readers_take_for_the_end_of_a_line_is_quoted(ending: str, tmp_path: Path) -> None:
    given = [{"text": text, "label": "x"} for text in ("a\rb", "a\nb", "a\r\nb", "c")]
    path = write_rows(tmp_path / f"a{ending}", given)
    assert [dict(row.fields) for row in read_rows(path)] == given
    assert b"x\r\n" not in path.read_bytes()


def test_what_is_no_text_is_a_cell_as_it_is_shown(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 31)
    (row,) = read_rows(write_rows(tmp_path / "a.csv", [{"day": day, "n": numpy.int64(3)}]))
    assert row.fields == {"day": "2026-01-31", "n": "3"}


def test_half_of_a_surrogate_pair_is_kept_where_it_can_be(tmp_path: Path) -> None:
    given = [{"text": "ü \\ \ud83d", "label": "x"}]
    path = write_rows(tmp_path / "a.jsonl", given)
    assert [dict(row.fields) for row in read_rows(path)] == given
    assert "ü" in path.read_text("utf-8")
    (row,) = read_rows(write_rows(tmp_path / "a.csv", given))
    assert row.fields["text"] == "ü \\ ?"


def test_json_lines_stay_as_they_are(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == ROWS


@pytest.mark.parametrize(
    ("content", "name", "begins"),
    [
        (b"a,b\n1,2\n", "b.csv", b"id,text"),
        (b"a;b\r\n1;2\r\n", "b.csv", b"id;text"),
        ("a;b\n1;ü\n".encode("utf-8-sig"), "b.csv", "\ufeffid;text".encode()),
        ("a;b\n1;ü\n".encode("windows-1252"), "b.csv", "\ufeffid;text".encode()),
        ("a\tb\n1\tü\n".encode("utf-16"), "b.csv", "\ufeffid,text".encode()),
        (b"a;b\n1;2\n", "b.tsv", b"id\ttext"),
        (b'{"a": 1}\n', "b.csv", b"id,text"),
        (None, "b.csv", b"id,text"),
    ],
)
def test_a_table_is_like_the_one_that_was_read(
    content: bytes | None, name: str, begins: bytes, tmp_path: Path
) -> None:
    like = tmp_path / ("a.jsonl" if content and content.startswith(b"{") else "a.csv")
    if content is not None:
        like.write_bytes(content)
    assert write_rows(tmp_path / name, ROWS, like=like).read_bytes().startswith(begins)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.txt: cannot tell what to write from the ending"):
        check_writable(tmp_path / "a.txt")
    with pytest.raises(UserError, match="is a folder; name the file to write in it"):
        check_writable(tmp_path)
    path = tmp_path / "a.csv"
    with pytest.raises(UserError, match="cannot hold the list or object in field 'tags'; write"):
        write_rows(path, [{"tags": ["a"]}])
    assert not path.exists()


def test_bad_rows_are_counted_and_named() -> None:
    bad = BadRows()
    assert list(bad.lines()) == []
    for number in range(12):
        bad(UserError(f'a.csv:{number}: field "text" is empty; fill it'))
    bad.check(["kept"])
    lines = list(bad.lines())
    assert lines[:2] == ["12 rows are left out:", '  a.csv:0: field "text" is empty']
    assert (len(lines), lines[-1]) == (12, "  and 2 more")
    with pytest.raises(UserError, match=r"is empty; fill it \(and so for 11 more\)$"):
        bad.check([])


def test_a_number_that_is_none_is_null_or_an_empty_cell(tmp_path: Path) -> None:
    row = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": -float("inf")}}
    written = write_rows(tmp_path / "o.jsonl", [row]).read_text("utf-8")
    assert json.loads(written, parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": None},
    }
    assert write_rows(tmp_path / "o.csv", [{"a": float("nan"), "b": 1}]).read_text() == "a,b\n,1\n"
