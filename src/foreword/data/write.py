"""Write rows to a file, in the format that its ending names."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.data.encodings import has_mark, read_parts
from foreword.data.folder import data_files
from foreword.data.formats import TABLES
from foreword.data.tables import find_delimiter
from foreword.errors import UserError, nearest
from foreword.files import check_place, write_jsonl, write_whole

ENDINGS = (".jsonl", ".ndjson", *TABLES)
"""The endings of files that are written."""

BREAK = "\r\n"
"""The signs for which a cell is quoted: readers take either for the end of a line."""


def check_writable(path: Path, rows: Iterable[Mapping[str, Any]] = ()) -> None:
    """Raise UserError for an ending that is not written, and for rows that its format cannot hold.

    The cells of a CSV or TSV file hold texts and numbers, but no lists and objects.
    """
    suffix = path.suffix.lower()
    check_place(path)
    if suffix not in ENDINGS:
        raise UserError(
            f"{path}: cannot tell what to write from the ending '{suffix}'; "
            f"{nearest(suffix, ENDINGS)}"
        )
    if suffix in TABLES:
        for row in rows:
            for name, value in row.items():
                if isinstance(value, list | tuple | Mapping):
                    raise UserError(
                        f"{path}: a cell of a table cannot hold the list or object in field "
                        f"'{name}'; write .jsonl"
                    )


def check_apart(path: Path, *read: str | Path | None) -> None:
    """Raise UserError where a file to write holds rows that are read, in a folder of them too."""
    for each in read if os.path.exists(path) else ():
        if each is None or not os.path.exists(each):
            continue
        files = data_files(Path(each)) if os.path.isdir(each) else [each]
        if any(os.path.samefile(path, file) for file in files):
            raise UserError(f"{path}: holds the rows that are read; write to another file")


def write_rows(
    path: Path,
    rows: Sequence[Mapping[str, Any]] | Callable[[], Iterable[Mapping[str, Any]]],
    *,
    like: str | Path | None = None,
    columns: Sequence[str] = (),
) -> Path:
    """Write rows as JSON lines, CSV or TSV, whole or not at all.

    A table has these ``columns``, and then one for every other field of the rows. A CSV file has
    semicolons between its cells if the file ``like`` has, and a byte order mark, by which Excel
    knows UTF-8, if that one comes from Excel. Rows that are read at each call are not held, and the
    ``columns`` of a table are then all. Raises UserError as :func:`check_writable` does.
    """
    if callable(rows):
        check_writable(path)
        columns, given = list(columns), rows()
    else:
        check_writable(path, rows)
        columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
        given = rows
    if path.suffix.lower() not in TABLES:
        return write_jsonl(path, given)
    delimiter, mark = (",", b"") if like is None else dialect_of(Path(like))
    sign = "\t" if path.suffix.lower() == ".tsv" else delimiter
    return write_whole(path, _table(given, columns, sign, mark))


def _table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], sign: str, mark: bytes
) -> Iterator[bytes]:
    """Yield the lines of a table, the header first."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=sign, lineterminator=BREAK)

    def line(cells: Sequence[str]) -> bytes:
        text.seek(0)
        text.truncate()
        writer.writerow(cells)
        return f"{text.getvalue().removesuffix(BREAK)}\n".encode("utf-8", "replace")

    yield mark + line(columns)
    for row in rows:
        yield line([_cell(row.get(name)) for name in columns])


def dialect_of(path: Path) -> tuple[str, bytes]:
    """Return the delimiter and the byte order mark for a CSV file that is like another file."""
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        return ",", codecs.BOM_UTF8
    if suffix not in TABLES or not path.is_file():
        return ",", b""
    try:
        text, encoding = read_parts(path, str(path), western=True)
    except UserError:  # of an encoding that was named; its separators are those of ASCII
        text, encoding = read_parts(path, str(path), given="latin-1")
    with path.open("rb") as file:
        excel = has_mark(file.read(4)) or encoding != "utf-8"
    return ";" if find_delimiter(text) == ";" else ",", codecs.BOM_UTF8 if excel else b""


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)
