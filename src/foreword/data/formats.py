"""Formats: files of rows, known by their endings; errors begin with `FILE:LINE`."""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from foreword.data.bad_rows import OnBad, refuse
from foreword.data.encodings import MARKS, decode, read_parts
from foreword.data.nested import questions
from foreword.data.row import Row, kind
from foreword.data.spreadsheet import AS_CSV, read_spreadsheet
from foreword.data.tables import read_table
from foreword.data.values import named, plain
from foreword.errors import UserError, nearest
from foreword.reporter import SILENT, Reporter

TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
TEXTS = (*LINES, ".json", *TABLES)
KNOWN = (*TEXTS, ".xlsx", ".parquet")
"""The endings of files that hold rows."""

OTHER_SPREADSHEETS = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")


def read_file(
    path: Path,
    name: str,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    on_bad: OnBad = refuse,
    report: Reporter = SILENT,
) -> Iterator[Row]:
    """Read the rows of one file, which errors call ``name``.

    ``delimiter`` is the sign between the cells of a CSV or TSV file, None to find it; ``encoding``
    is that of a file of text, None for UTF-8 and what :func:`decode` finds. ``report`` hears of an
    encoding that had to be guessed, and of cells that may be meant otherwise. Raises UserError for
    an unknown ending, and for content that is not what the ending says.
    """
    suffix, zipped = _suffix(path.name)
    if suffix == ".parquet" and not zipped:
        return _parquet(path, name)
    if suffix == ".xlsx" and not zipped:
        return read_spreadsheet(path, name, on_bad=on_bad)
    if suffix not in TEXTS:
        hint = AS_CSV if suffix in OTHER_SPREADSHEETS else nearest(suffix, KNOWN)
        raise UserError(f"{name}: cannot tell its format from the ending '{suffix}'; {hint}")
    if suffix in LINES and not zipped and delimiter is None:
        return json_lines(_lines_of(path, name, encoding), name, on_bad=on_bad)
    if suffix in TABLES and not zipped:
        parts, found = read_parts(path, name, western=True, given=encoding)
        _say_guessed(found, encoding, name, report)
        return read_table(parts, name, delimiter=delimiter, on_bad=on_bad, report=report)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if zipped else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name}: not a whole gzip file ({error}); compress it again") from None
    options: dict[str, Any] = {"delimiter": delimiter, "encoding": encoding}
    return read_text(data, name, suffix, **options, on_bad=on_bad, report=report)


def read_text(
    data: bytes,
    name: str,
    suffix: str | None = None,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    on_bad: OnBad = refuse,
    report: Reporter = SILENT,
) -> Iterator[Row]:
    """Read the rows of a file's bytes; without its ``suffix``, the first sign tells the format."""
    western = suffix is None or suffix in TABLES
    text, found = decode(data, name, western=western, given=encoding)
    _say_guessed(found, encoding, name, report)
    if suffix is None:
        suffix = {"{": ".jsonl", "[": ".json"}.get(text.lstrip()[0], ".csv")
    if suffix in TABLES:
        return read_table(lambda: [text], name, delimiter=delimiter, on_bad=on_bad, report=report)
    if delimiter is not None:
        raise UserError(f"{name}: `delimiter` is for CSV and TSV files; leave it out")
    if suffix == ".json":
        return _json(text, name)
    # Not str.splitlines: U+2028 and its like may stand inside a JSON string.
    return json_lines(text.split("\n"), name, on_bad=on_bad)


def _say_guessed(found: str, given: str | None, name: str, report: Reporter) -> None:
    if given is None and found == "windows-1252":
        report.line(f"{name}: is not UTF-8; read as Windows-1252, as Excel for Windows saves CSV")


def _suffix(name: str) -> tuple[str, bool]:
    lower = name.lower()
    return Path(lower.removesuffix(".gz")).suffix, lower.endswith(".gz")


def may_hold_rows(path: Path) -> bool:
    """Tell whether a path is a folder, or a file whose ending is that of rows."""
    return path.is_dir() or is_data_name(path.name)


def is_data_name(name: str) -> bool:
    """Tell whether a name has the ending of a file of rows."""
    suffix, zipped = _suffix(name)
    return zipped or suffix in KNOWN


def _lines_of(path: Path, name: str, given: str | None) -> Iterator[str]:
    """Yield the lines of a file of UTF-8, one at a time; of another encoding, after all are read.

    Raises UserError as ``decode`` does.
    """
    if given not in (None, "utf-8"):
        yield from decode(path.read_bytes(), name, given=given)[0].split("\n")
        return
    blank = True
    with path.open("rb") as file:
        mark = next((mark for mark in MARKS if file.peek(len(mark)).startswith(mark)), b"")
        if MARKS.get(mark, "utf-8") == "utf-8":
            file.read(len(mark))
            try:
                for line in file:
                    blank = blank and not line.strip()
                    yield line.decode().removesuffix("\n")
            except UnicodeDecodeError:
                blank = True
            if not blank:
                return
    yield from decode(path.read_bytes(), name, given=given)[0].split("\n")


def json_lines(lines: Iterable[str], name: str, *, on_bad: OnBad = refuse) -> Iterator[Row]:
    """Read one JSON object a line; ``on_bad`` is given the error of a line that holds none."""
    whole = ""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        whole = whole or (
            "rename it to .json" if line.lstrip()[0] == "[" else "write one object a line"
        )
        try:
            value = _parsed(line, name, number, hint=whole)
            row = _object(value, f"{name}:{number}", hint=whole)
        except UserError as error:
            on_bad(error)
        else:
            yield from (Row(fields, row.where) for fields in questions(row.fields))


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
    number = 0
    for record in records:
        whole = _object(record, f"{name}:{number + 1}", hint="write each row as one")
        for fields in questions(whole.fields):
            number += 1
            yield Row(fields, f"{name}:{number}")


def _parsed(text: str, name: str, line: int, *, hint: str) -> Any:
    """Parse JSON that starts at `line` of the file."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _TwiceError as error:
        raise UserError(f"{name}:{line}: key '{error}' is there twice; leave one out") from None
    except json.JSONDecodeError as error:
        place = f"{name}:{line + error.lineno - 1}"
        raise UserError(
            f"{place}: not valid JSON at column {error.colno} ({error.msg}); {hint}"
        ) from None
    except (RecursionError, ValueError):  # thousands of brackets, or of digits
        raise UserError(
            f"{name}:{line}: JSON nested too deeply, or a number too long; store it as text"
        ) from None


class _TwiceError(Exception):
    """An object has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values, of which none may be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return made


def _object(value: Any, where: str, *, hint: str) -> Row:
    if not isinstance(value, dict):
        example = '{"text": ..., "label": ...}'
        raise UserError(
            f"{where}: expected an object such as {example}, found {kind(value)}; {hint}"
        )
    return Row(value, where)


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    try:
        records = arrow_records(pq.read_table(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{name}: not a whole Parquet file ({reason}); write it again") from None
    return (Row(record, f"{name}:{n}") for n, record in enumerate(records, start=1))


def arrow_records(table: Any) -> list[dict[str, Any]]:
    """Return the records of a `pyarrow.Table`, with class labels by the names in its schema."""
    about = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(about)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        features = None
    return [plain(named(features, record)) for record in table.to_pylist()]


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
