"""Formats: files of rows, told by their endings; complaints begin with `FILE:LINE`."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from foreword.data.row import Row, kind
from foreword.errors import UserError, nearest


def read_file(path: Path, name: str) -> Iterator[Row]:
    """Read the rows of one file; complaints call it ``name``.

    Raises UserError for an unknown ending, and for content that is not what the ending says.
    """
    suffix, zipped = _suffix(path.name)
    if suffix == ".parquet" and not zipped:
        return _parquet(path, name)
    if suffix not in _TEXT_FORMATS:
        hint = nearest(suffix, _KNOWN)
        raise UserError(f"{name}: cannot tell its format from the ending '{suffix}'; {hint}")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if zipped else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name}: not a whole gzip file ({error}); compress it again") from None
    return _TEXT_FORMATS[suffix](decode(data, name), name)


def _suffix(name: str) -> tuple[str, bool]:
    lower = name.lower()
    return Path(lower.removesuffix(".gz")).suffix, lower.endswith(".gz")


def may_hold_rows(path: Path) -> bool:
    """Tell whether a path is a folder, or a file whose ending is that of rows."""
    return path.is_dir() or is_data_name(path.name)


def is_data_name(name: str) -> bool:
    """Tell whether a name has the ending of a file of rows."""
    suffix, zipped = _suffix(name)
    return zipped or suffix in _KNOWN


def decode(data: bytes, name: str) -> str:
    """Decode a file's bytes as UTF-8; raises UserError for other bytes and for an empty file."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name}:{line}: not UTF-8 (byte {error.start} of the file is "
            f"0x{data[error.start]:02x}); save as UTF-8"
        ) from None
    if not text.strip():
        raise UserError(f"{name}: the file is empty; write at least one row")
    return text


def json_lines(text: str, name: str) -> Iterator[Row]:
    """Read one JSON object a line; raises UserError for a line that holds none."""
    whole = "rename it to .json" if text.lstrip().startswith("[") else "write one object a line"
    # Not str.splitlines: U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(_parsed(line, name, number, hint=whole), f"{name}:{number}", hint=whole)


def _json(text: str, name: str) -> Iterator[Row]:
    lines = text.split("\n", 1)[0].rstrip().endswith("}")
    hint = "name it .jsonl if it holds one object a line" if lines else "mend the JSON there"
    value = _parsed(text, name, 1, hint=hint)
    records = value.get("data") if isinstance(value, dict) else value
    if not isinstance(records, list):
        raise UserError(
            f'{name}:1: expected a list of objects or {{"data": [...]}}, found '
            f"{kind(value)}{' without such a list' * isinstance(value, dict)}; put the rows in one"
        )
    for number, record in enumerate(records, start=1):
        yield _object(record, f"{name}:{number}", hint="write each row as one")


def _parsed(text: str, name: str, line: int, *, hint: str) -> Any:
    """Parse JSON that starts at `line` of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{name}:{line + error.lineno - 1}"
        raise UserError(
            f"{place}: not valid JSON at column {error.colno} ({error.msg}); {hint}"
        ) from None
    except (RecursionError, ValueError):  # thousands of brackets, or of digits
        raise UserError(
            f"{name}:{line}: JSON nested too deeply, or a number too long; store it as text"
        ) from None


def _object(value: Any, where: str, *, hint: str) -> Row:
    if not isinstance(value, dict):
        example = '{"text": ..., "label": ...}'
        raise UserError(
            f"{where}: expected an object such as {example}, found {kind(value)}; {hint}"
        )
    return Row(value, where)


def _comma_separated(text: str, name: str) -> Iterator[Row]:
    return _table(text, name, delimiter=",")


def _tab_separated(text: str, name: str) -> Iterator[Row]:
    return _table(text, name, delimiter="\t")


def _table(text: str, name: str, *, delimiter: str) -> Iterator[Row]:
    cells = _cells(text, name, delimiter)
    line, header = next(cells, (1, []))
    header = [column.strip() for column in header]
    for column in header:
        if header.count(column) > 1:
            raise UserError(f"{name}:{line}: two columns are named '{column}'; rename one")
    mark = "tab" if delimiter == "\t" else "comma"
    for line, row in cells:
        if len(row) != len(header):
            raise UserError(
                f"{name}:{line}: cells in this row: {len(row)}, in the header: {len(header)} "
                f"({', '.join(header)}); fill the row, or quote a cell that holds a {mark}"
            )
        yield Row(dict(zip(header, row, strict=True)), f"{name}:{line}")


def _cells(text: str, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Give each row that is not blank with the line it starts on: a quoted cell may hold more."""
    # newline="" keeps the line ends inside quoted cells as they are; strict, because otherwise a
    # quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{name}:{line}: quotes that do not pair up ({error}); double each quote inside a "
                "quoted cell, or save as .jsonl"
            ) from None
        if len(row) > 1 or "".join(row).strip():
            yield line, row


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise UserError(f"{name}: not a whole Parquet file ({reason}); write it again") from None
    return (Row(record, f"{name}:{n}") for n, record in enumerate(records, start=1))


_TEXT_FORMATS: dict[str, Callable[[str, str], Iterator[Row]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": _json,
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
}
_KNOWN = [*_TEXT_FORMATS, ".parquet"]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" .;:")


def neighbours(path: Path) -> str:
    """End a line about a missing file with the files beside it that may be meant."""
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder '{folder}' does not exist either"
    names = [each.name for each in folder.iterdir() if may_hold_rows(each)]
    # A folder may hold thousands of files: name the few that are likely meant.
    likely = difflib.get_close_matches(path.name, sorted(names), n=5, cutoff=0.0)
    return f"; {nearest(path.name, likely)}" if likely else f"; the folder '{folder}' holds none"
