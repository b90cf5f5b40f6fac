"""Read rows of data from a file, a folder, a `datasets` hub id, or standard input.

Every row remembers where it stands, so that a later complaint can begin with `FILE:LINE`. Nothing
is guessed about the meaning of the fields here: that is `shapes.canonical`.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.errors import UserError, nearest


@dataclass(frozen=True)
class Row:
    """One example: its fields, where they were read, and which of several tasks it is of."""

    fields: Mapping[str, Any]
    where: str
    """`train.jsonl:17`: the path as given, then the line, both as an editor shows them. Formats
    without lines of their own (JSON, Parquet, `datasets`) count records from 1 instead."""
    task: int = 0


def read_rows(
    source: str | Path, *, columns: Mapping[str, str] | None = None, split: str | None = None
) -> list[Row]:
    """Read every row of `source`, renaming columns as told.

    `source` is a `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` (any of them also `.gz`) or
    `.parquet` file; `-` for JSON lines on standard input; a folder of such files or one that
    `datasets` saved; or a hub id, `owner/name` or `owner/name/configuration`. Class labels that
    `datasets` stores as numbers come back as their names.

    `columns` maps a field's name to the column it is read from, as in `{"text": "sentence"}`; a
    column of the file that already bears that name gives way. `split` (default `train`) picks the
    part of a folder or a hub id.

    Raises UserError, in one line that begins with the file and the line, for whatever is missing,
    unreadable, malformed or empty.
    """
    try:
        rows = list(_records(source, split))
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise UserError(f"{source}: cannot be read ({reason}); check the file") from None
    if not rows:
        raise UserError(f"{source}: no rows; write at least one")
    return [_renamed(row, columns) for row in rows] if columns else rows


def kind(value: object) -> str:
    """Say what a value read from a file is, in the words of an error line."""
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def _records(source: str | Path, split: str | None) -> Iterator[Row]:
    path = Path(source)
    if path.is_dir():
        return _folder(source, path, split or "train", explicit=split is not None)
    if not path.exists() and str(source) != "-":
        if isinstance(source, str) and _HUB_ID.fullmatch(source) and not _is_data_name(source):
            return _hub(source, path, split or "train")
        raise UserError(f"{source}: no such file or folder{_neighbours(path)}")
    if split is not None:
        raise UserError(
            f"{source}: is one file, so there is no split '{split}' to pick; leave the split out"
        )
    if str(source) == "-":
        return _json_lines(_decoded(sys.stdin.buffer.read(), "<stdin>"), "<stdin>")
    return _file(path, str(source))


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    for name, column in columns.items():
        if column not in row.fields:
            hint = nearest(column, row.fields)
            raise UserError(f"{row.where}: no column '{column}' to read '{name}' from; {hint}")
    taken = {*columns, *columns.values()}
    mapped = {name: row.fields[column] for name, column in columns.items()}
    return Row(mapped | {k: v for k, v in row.fields.items() if k not in taken}, row.where)


# Files -------------------------------------------------------------------------------------------


def _file(path: Path, name: str) -> Iterator[Row]:
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
    return _TEXT_FORMATS[suffix](_decoded(data, name), name)


def _suffix(name: str) -> tuple[str, bool]:
    lower = name.lower()
    return Path(lower.removesuffix(".gz")).suffix, lower.endswith(".gz")


def _may_hold_rows(path: Path) -> bool:
    return path.is_dir() or _is_data_name(path.name)


def _is_data_name(name: str) -> bool:
    suffix, zipped = _suffix(name)
    return zipped or suffix in _KNOWN


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder '{folder}' does not exist either"
    names = [each.name for each in folder.iterdir() if _may_hold_rows(each)]
    # A folder may hold thousands of files: name the few that are likely meant.
    likely = difflib.get_close_matches(path.name, sorted(names), n=5, cutoff=0.0)
    return f"; {nearest(path.name, likely)}" if likely else f"; the folder '{folder}' holds none"


def _decoded(data: bytes, name: str) -> str:
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


def _json_lines(text: str, name: str) -> Iterator[Row]:
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
        reason = _first_line(error)
        raise UserError(f"{name}: not a whole Parquet file ({reason}); write it again") from None
    return (Row(record, f"{name}:{n}") for n, record in enumerate(records, start=1))


_TEXT_FORMATS: dict[str, Callable[[str, str], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
}
_KNOWN = [*_TEXT_FORMATS, ".parquet"]


# Folders and hub ids -----------------------------------------------------------------------------

# The owner is required: a bare word is more likely a misspelt file, and `datasets` takes "csv" or
# "text" for a builder over the current folder.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+){1,2}")


def _folder(source: str | Path, path: Path, split: str, *, explicit: bool) -> Iterator[Row]:
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    alike = [each for each in path.iterdir() if split in each.name and _may_hold_rows(each)]
    if (
        not saved
        and len(alike) == 1
        and alike[0].is_file()
        and alike[0].stem.split(".")[0] == split
    ):
        # The plain case needs no library, and so keeps lines in its complaints.
        return _file(alike[0], str(Path(source) / alike[0].name))

    import datasets  # slow to import

    try:
        # The whole path, because a folder called "text" or "json" would else mean a builder.
        whole = str(path.resolve())
        loaded = datasets.load_from_disk(whole) if saved else datasets.load_dataset(whole)
    except Exception as error:  # whatever another library raises about a file is not our bug
        reason = _first_line(error.__cause__ or error)
        raise UserError(f"{source}: cannot be read as a dataset ({reason}); give a file") from None
    if isinstance(loaded, datasets.Dataset):
        own = str(loaded.split or split)
        return _dataset({own: loaded}, str(source), split if explicit else own)
    return _dataset(loaded, str(source), split)


def _hub(source: str, path: Path, split: str) -> Iterator[Row]:
    import datasets  # slow to import

    owner_name, configuration = source, None
    if source.count("/") == 2:
        owner_name, _, configuration = source.rpartition("/")
    try:
        loaded = datasets.load_dataset(owner_name, configuration)
    except Exception as error:  # the network, the hub and the builders raise nearly anything
        reason = _first_line(error.__cause__ or error)
        near = _neighbours(path) if path.parent.is_dir() else ""
        raise UserError(
            f"{source}: no such file or folder{near}; and no such dataset within reach ({reason}): "
            "check the spelling, or give a local file"
        ) from None
    return _dataset(loaded, source, split)


def _dataset(splits: Mapping[str, Any], name: str, split: str) -> Iterator[Row]:
    from datasets import ClassLabel

    if split not in splits:
        raise UserError(f"{name}: no split '{split}'; {nearest(split, splits)}")
    dataset = splits[split]
    labels = {k: f.names for k, f in dataset.features.items() if isinstance(f, ClassLabel)}
    for number, record in enumerate(dataset.to_list(), start=1):
        for column, names in labels.items():
            index = record[column]
            # `datasets` writes -1 where a label is withheld.
            record[column] = names[index] if index is not None and index >= 0 else None
        yield Row(record, f"{name}:{number}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" .;:")
