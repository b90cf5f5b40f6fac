"""CSV as people have it: delimiters, quotes and encodings that are found; spreadsheets."""

from __future__ import annotations

import csv
import datetime
import io
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.data import encodings, tables
from foreword.data.read import iterate_rows, read_rows
from foreword.data.row import Row
from foreword.data.tables import cells, find_delimiter, parse_delimiter
from foreword.errors import UserError
from foreword.reporter import Reporter

GERMAN = [
    {"id": "01", "Anfrage": "Wo bleibt mein Päckchen, bitte?", "Kategorie": "Versand"},
    {"id": "02", "Anfrage": 'Der "Kessel" ist kaputt; was nun?', "Kategorie": "Rückgabe"},
]


class Lines(Reporter):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def line(self, text: str) -> None:
        self.heard.append(text)


def fields(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in read_rows(*arguments, **options)]


def table(rows: list[dict[str, str]], sign: str, end: str = "\r\n") -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=sign, lineterminator=end)
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252"])
@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_delimiters_and_encodings_are_found(sign: str, encoding: str, tmp_path: Path) -> None:
    path, report = tmp_path / "a.csv", Lines()
    path.write_bytes(table(GERMAN, sign).encode(encoding))
    rows = read_rows(path, report=report)
    assert [dict(row.fields) for row in rows] == GERMAN
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:3"]
    guessed = encoding == "windows-1252"
    assert (
        report.heard
        == [f"{path}: is not UTF-8; read as Windows-1252, as Excel for Windows saves CSV"] * guessed
    )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a;b\n"Ja" sagte er;x\n', [['"Ja" sagte er', "x"]]),
        ('a;b\n"Sie sagte "nein" dazu";x\n', [['Sie sagte "nein" dazu', "x"]]),
        ('a;b\n5" Zoll;x\n"offen;y\nzu";z\n', [['5" Zoll', "x"], ["offen;y\nzu", "z"]]),
        ('a;b\n"offen;y\nnoch "so;z\n', [['"offen', "y"], ['noch "so', "z"]]),
        ('a\tb\n"\tx\ny\t"z\n', [['"', "x"], ["y", '"z']]),
        ('a,b\n"",""""\n"""x""",\r"1,\r\n2",y', [["", '"'], ['"x"', ""], ["1,\r\n2", "y"]]),
        ("sep=;\na;b\n1,5;x\n", [["1,5", "x"]]),
        ('"sep=|"\r\na|b\r\n1;5|x\r\n', [["1;5", "x"]]),
        ("a;b\n\n;\nx;y\n", [["x", "y"]]),
    ],
)
def test_quotes_are_no_error(text: str, rows: list[list[str]], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert [list(row.values()) for row in fields(path)] == rows


def test_quotes_are_text_where_rows_only_fit_without_them(tmp_path: Path) -> None:
    """As in data sets that are written without quoting, one row a line."""
    path, errors = tmp_path / "a.tsv", []
    path.write_text('a\tb\n"so\tx\nhe said "yes"\t1\n"both"\t"z"\n', "utf-8")
    assert [list(row.values()) for row in fields(path)] == [
        ['"so', "x"],
        ['he said "yes"', "1"],
        ["both", "z"],
    ]
    path.write_text('a\tb\n"so\tx\nand\t"\n"both"\t"z"\n', "utf-8")
    assert [list(row.values()) for row in fields(path)] == [
        ['"so', "x"],
        ["and", '"'],
        ["both", "z"],
    ]
    path.write_text('a\tb\n"so\tx\nand\t"\nalone\n1\t2\n', "utf-8")
    assert [row["a"] for row in fields(path, on_bad=errors.append)] == ['"so', "and", "1"]
    assert [str(error).partition(": ")[0] for error in errors] == [f"{path}:4"]


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        (
            'a\tb\n"so he said\tx\nfine\ty\nhe said "no"\ty\nbye"\tx\n',
            [['"so he said', "x"], ["fine", "y"], ['he said "no"', "y"], ['bye"', "x"]],
            None,
        ),
        (
            'a\tb\n"both"\tx\n"lone\ty\n\nend"\ty\n"2\tlast"\tz\n',
            [["both", "x"], ['"lone', "y"], ['end"', "y"], ["2\tlast", "z"]],
            None,
        ),
        ('a\tb\n"2\nlines"\tx\n', [["2\nlines", "x"]], "a.csv:2: a quoted cell goes over 2 lines"),
        (
            'b\ta\nx\t"2\nlines"\ny\t"\n\n2"\n',
            [["x", "2\nlines"], ["y", "\n\n2"]],
            "a.csv:2: a quoted cell goes over 2 lines (and so do 1 more)",
        ),
        ('a,b\n"2\nlines",x\n', [["2\nlines", "x"]], None),
        ('a,b\n"Hi,\nyou",x\n', [["Hi,\nyou", "x"]], "a.csv:2: a quoted cell goes over 2 lines"),
        ('a;b\n"x;y\nz";y;w\nu;v\n', None, None),
        ('a;b;c\n"x;y;1\nz;q";w\nu;v;w\n', [['"x', "y", "1"], ["z", 'q"', "w"], [*"uvw"]], None),
    ],
)
def test_a_quote_that_pairs_up_lines_below_is_text_or_is_told(
    text: str, rows: list[list[str]] | None, said: str | None, tmp_path: Path
) -> None:
    path, report = tmp_path / "a.csv", Lines()
    path.write_text(text, "utf-8")
    if rows is None:
        with pytest.raises(UserError, match=r"a\.csv:2: cells in this row: 3, in the header: 2"):
            read_rows(path)
        return
    read = read_rows(path, report=report)
    assert [list(row.fields.values()) for row in read] == rows
    assert [line.partition("; ")[0] for line in report.heard] == (
        [] if said is None else [f"{tmp_path}/{said}"]
    )
    lines = text.split("\n")
    for row in read:  # each begins on the line that is named
        first = str(next(iter(row.fields.values()))).split("\n")[0]
        assert (
            lines[int(row.where.rpartition(":")[2]) - 1].lstrip('"').startswith(first.lstrip('"'))
        )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('text, label\n"a, b", "p"\nx, y\n"c" , "q"\n', [["a, b", "p"], ["x", "y"], ["c", "q"]]),
        ('text,label\n"a, b", "p"\nx,y\n', [["a, b", "p"], ["x", "y"]]),
        ('text; label\n "a; b"; p\n', [["a; b", "p"]]),
        ("text | label\na | b\nc | d\n", [["a", "b"], ["c", "d"]]),
        ("text,label\na, b\n", [["a", " b"]]),  # the header has no such space
        ('text,label\na, "b" c\n', [["a", ' "b" c']]),
    ],
)
def test_spaces_around_delimiters_and_quotes(
    text: str, rows: list[list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, "utf-8")
    assert [list(row.values()) for row in fields(path)] == rows


@pytest.mark.parametrize(
    ("text", "delimiter", "said"),
    [
        ("text~label\na~b\n", None, "'~' parts its cells, give `delimiter=~`"),
        ("text::label\na::b\n", None, "'::' parts its cells, write a tab in its place"),
        ("text\uff0clabel\na\uff0cb\n", None, "give `delimiter=\uff0c`"),
        ("text\x01label\na\x01b\n", None, "write a tab in its place"),
        ("text;label\na;b\n", ",", "give `delimiter=;`"),
        ("text\tlabel\na\tb\n", ",", "write a tab in its place"),
        ("text\nHello, you\n", None, None),
        ("to-do\nco-op\n", None, None),
        ("a:b\nno colon\n", None, None),
        ("text,label\na~b,c\n", None, None),
    ],
)
def test_one_column_that_may_be_several_is_told(
    text: str, delimiter: str | None, said: str | None, tmp_path: Path
) -> None:
    path, report = tmp_path / "a.csv", Lines()
    path.write_text(text, "utf-8")
    read_rows(path, delimiter=delimiter, report=report)
    assert len(report.heard) == (said is not None)
    if said is not None:
        assert report.heard[0].startswith(f"{path}: read as one column; if ")
        assert report.heard[0].endswith(said)


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'sep=;\r\na;b\r\n"1\r\n2";x\r\n\r\n3;4\r\n')
    assert [row.where for row in read_rows(path)] == [f"{path}:3", f"{path}:6"]


SAFE = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=40)
@given(st.lists(st.lists(SAFE, min_size=2, max_size=2), max_size=4), st.sampled_from(",;\t|"))
def test_what_csv_writes_is_read_as_it_was(rows: list[list[str]], sign: str) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=sign, lineterminator="\n").writerows(rows)
    assert [row for _, row in cells(file.getvalue(), sign)] == rows


@settings(max_examples=300, deadline=None)
@given(st.text('a ",\n\r;', max_size=40), st.integers(1, 9), st.booleans())
def test_cells_of_a_text_in_parts_are_those_of_the_whole(text: str, n: int, quoted: bool) -> None:
    parts = [text[start : start + n] for start in range(0, len(text), n)]
    assert list(cells(parts, ",", quoted=quoted)) == list(cells(text, ",", quoted=quoted))


class Counted(Row):
    """A row that counts how many there are at once."""

    alive: ClassVar[set[int]] = set()
    most: ClassVar[int] = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        Counted.alive.add(id(self))
        Counted.most = max(Counted.most, len(Counted.alive))

    def __del__(self) -> None:
        Counted.alive.discard(id(self))


def test_a_table_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "Row", Counted)
    monkeypatch.setattr(encodings, "PART", 100)
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + "".join(f'{n},"ä\n{n}"\n' for n in range(500)), "utf-8")
    assert [row.fields["id"] for row in iterate_rows(path)] == [str(n) for n in range(500)]
    assert 1 <= Counted.most <= 3
    largest = max(len(part) for part in encodings.read_parts(path, "a.csv")[0]())
    assert largest <= 100


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("a,b\nx;y,z\n", ","),
        ("text;label\nHallo, wie, geht, es;Frage\nUnd, Du;x\n", ";"),
        ("id;Name, Vorname;x\n1;Meier, Eva;y\n2;Ott;z\n", ";"),
        ("text\nHello, world; well\n", None),
        ('"a,b";c\n"x,y";z\n', ";"),
        ("text\tlabel\na,b\tc\nd,e\tf\n", "\t"),
    ],
)
def test_the_header_and_most_rows_decide(text: str, sign: str | None) -> None:
    assert find_delimiter(lambda: [text]) == sign


def test_one_column_needs_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\nHello, world; well\n"quoted, too"\n', "utf-8")
    assert fields(path) == [{"text": "Hello, world; well"}, {"text": "quoted, too"}]


def test_a_given_delimiter_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a~b;c\n1~2;3\n", "utf-8")
    assert fields(path) == [{"a~b": "1~2", "c": "3"}]
    assert fields(path, delimiter="~") == [{"a": "1", "b;c": "2;3"}]
    assert (parse_delimiter("tab"), parse_delimiter("\\t"), parse_delimiter(";")) == (
        "\t",
        "\t",
        ";",
    )
    with pytest.raises(UserError, match="`delimiter=;;`: give one sign, or one of the words comma"):
        read_rows(path, delimiter=";;")
    other = tmp_path / "a.jsonl"
    other.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match="`delimiter` is for CSV and TSV files; leave it out"):
        read_rows(other, delimiter=";")


@pytest.mark.parametrize(
    "data",
    [
        "text,label\nschöne Größe,ja\n".encode("mac-roman"),
        "text,label\nzażółć gęślą jaźń,tak\n".encode("windows-1250"),
        "text,label\nхороший фильм,да\n".encode("windows-1251"),
        "text,label\nşık bir ağ,evet\n".encode("windows-1254"),
        "text,label\n很好的电影,好\n".encode("gb18030"),
        "text,label\nschöne Größe,ja\n".encode("cp850"),
    ],
)
def test_other_encodings_are_refused_and_not_guessed(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.csv:2: not UTF-8 .*save as UTF-8, in Excel as CSV"):
        read_rows(path)


@pytest.mark.parametrize(
    ("text", "where"),
    [('{"a": "1"}\n', "<stdin>:1"), ('[{"a": "1"}]', "<stdin>:1"), ("a;b\n1;\n", "<stdin>:2")],
)
def test_standard_input_by_its_first_sign(
    text: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8-sig"))))
    (row,) = read_rows("-")
    assert (row.fields["a"], row.where) == ("1", where)


def test_rows_that_cannot_be_read_are_given_to_the_caller(tmp_path: Path) -> None:
    path, errors = tmp_path / "a.csv", []
    path.write_text("a;b\n1;2\n3\n4;5;6\n7;8\n", "utf-8")
    assert [row["a"] for row in fields(path, on_bad=errors.append)] == ["1", "7"]
    assert [str(error).partition(": ")[0] for error in errors] == [f"{path}:3", f"{path}:4"]
    path, errors = tmp_path / "a.jsonl", []
    path.write_text('{"a": 1}\n{"a": \n[]\n{"a": 2}\n', "utf-8")
    assert fields(path, on_bad=errors.append) == [{"a": 1}, {"a": 2}]
    assert [str(error).partition(": ")[0] for error in errors] == [f"{path}:2", f"{path}:3"]


# Spreadsheets ------------------------------------------------------------------------------------


def test_a_spreadsheet_reads_as_its_csv(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["id", "Anfrage ", "Kategorie", "wert", "tag"])
    sheet.append(["01", GERMAN[0]["Anfrage"], "Versand", 3.0, datetime.date(2026, 11, 2)])
    sheet.append([])
    sheet.append([7, GERMAN[1]["Anfrage"], None, 2.5, datetime.datetime(2026, 11, 2, 9, 30)])
    sheet["A5"].number_format = "000"
    book.create_sheet("notes").append(["not", "read"])
    path = tmp_path / "a.xlsx"
    book.save(path)
    rows = read_rows(path)
    assert [row.where for row in rows] == [f"{path}:3", f"{path}:5"]
    assert [list(row.fields.values()) for row in rows] == [
        ["01", GERMAN[0]["Anfrage"], "Versand", "3", "2026-11-02"],
        ["007", GERMAN[1]["Anfrage"], "", "2.5", "2026-11-02 09:30:00"],
    ]
    assert list(rows[0].fields) == ["id", "Anfrage", "Kategorie", "wert", "tag"]


@pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/styles.xml", "a byte", "a lock"])
def test_a_damaged_spreadsheet_is_told(part: str, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, path = openpyxl.Workbook(), tmp_path / "a.xlsx"
    book.active.append(["text", "label"])
    book.active.append(["a film", "good"])
    book.save(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as whole:
        infos = whole.infolist()
        parts = {info.filename: whole.read(info) for info in infos}
    if part in parts:
        with zipfile.ZipFile(path, "w") as damaged:
            for name, content in parts.items():
                damaged.writestr(name, content[: len(content) // 2] if name == part else content)
    elif part == "a byte":
        place = next(i.header_offset for i in infos if i.filename.endswith("sheet1.xml"))
        data[place + 60 : place + 70] = b"\xff" * 10  # in what is compressed
        path.write_bytes(data)
    else:
        for entry in re.finditer(b"PK\x01\x02", bytes(data)):
            data[entry.start() + 8] |= 1  # said to be encrypted
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.xlsx: not a whole \.xlsx file \(.+\); save it as CSV"):
        read_rows(path)


def test_a_spreadsheet_needs_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"a\.xlsx: not a whole \.xlsx file \(.*\); save it as CSV"):
        read_rows(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert str(caught.value) == (
        f"{path}: reading .xlsx needs openpyxl; pip install 'foreword[excel]', or save it as CSV "
        "(in Excel: Save As, CSV UTF-8)"
    )
