"""Read rows of data from a file, a folder, a `datasets` hub id, or standard input.

Every row remembers where it stands, so that a later complaint can begin with `FILE:LINE`. Nothing
is guessed about the meaning of the fields here: that is `shapes.canonical`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.data.bad_rows import OnBad, convert, refuse
from foreword.data.encodings import parse_encoding
from foreword.data.folder import read_files
from foreword.data.formats import (
    first_line,
    is_data_name,
    neighbours,
    read_file,
    read_text,
)
from foreword.data.hub import HUB_ID, is_saved, parse_split, read_hub, read_saved
from foreword.data.row import Row
from foreword.data.tables import parse_delimiter
from foreword.errors import UserError, nearest
from foreword.reporter import SILENT, Reporter


def read_rows(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    on_bad: OnBad = refuse,
    report: Reporter = SILENT,
) -> list[Row]:
    """Read every row of `source`, renaming columns as told.

    `source` is a `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` (any of them also `.gz`), `.xlsx` or
    `.parquet` file; `-` for JSON lines, JSON or CSV on standard input; a folder of such files or
    one that `datasets` saved; or a hub id, `owner/name` or `owner/name/configuration`. Class labels
    that `datasets` stores as numbers come back as their names, and questions that are nested in
    documents, as in SQuAD, as a row each.

    `columns` maps a field's name to the column it is read from, as in `{"text": "sentence"}`; a
    column of the file that already bears that name gives way. `split` (default `train`) picks the
    part of a folder or a hub id; of several names, such as `hub.DEV`, the first that there is. A
    split that stands in the source, as in `owner/name:test`, wins.

    `delimiter` is the sign between the cells of a CSV or TSV file, one sign or a word such as
    `tab`; without, it is found. `encoding` is that of files of text, such as `gb18030`; without,
    they are read as UTF-8, or as what their first bytes or Excel say. `on_bad` is given the error
    of each row that cannot be read: by default it raises it. `report` hears of an encoding that had
    to be guessed, and of cells that may be meant otherwise.

    Raises UserError, in one line that begins with the file and the line, for whatever is missing,
    unreadable, malformed or empty.
    """
    return list(
        iterate_rows(
            source,
            columns=columns,
            split=split,
            delimiter=delimiter,
            encoding=encoding,
            on_bad=on_bad,
            report=report,
        )
    )


def iterate_rows(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    on_bad: OnBad = refuse,
    report: Reporter = SILENT,
) -> Iterator[Row]:
    """Yield what :func:`read_rows` returns; of a file of JSON lines, one line is in memory."""
    sign = None if delimiter is None else parse_delimiter(delimiter)
    bad: list[UserError] = []

    def take(error: UserError) -> None:
        on_bad(error)
        bad.append(error)

    options: dict[str, Any] = {
        "delimiter": sign,
        "encoding": None if encoding is None else parse_encoding(encoding),
        "on_bad": take,
        "report": report,
    }
    none = True
    try:
        for row in _records(source, split, options):
            none = False
            if columns:
                yield from convert([row], lambda row: rename(row, columns), on_bad)
            else:
                yield row
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"{source}: cannot be read ({reason}); check the file") from None
    if none:
        raise bad[0] if bad else UserError(f"{source}: no rows; write at least one")


def _records(
    source: str | Path, split: str | Sequence[str] | None, options: Mapping[str, Any]
) -> Iterator[Row]:
    source, given = parse_split(source)
    if source == "":
        raise UserError("an empty name was given for rows; give a file, a folder or a hub id")
    split = given or split
    explicit = isinstance(split, str)
    splits = [split] if isinstance(split, str) else split or ["train"]
    path = Path(source)
    if isinstance(source, str) and "://" in source and not path.exists():
        raise UserError(f"{source}: is an address, not a file; download it and give its path")
    if path.is_dir():
        if is_saved(path):
            return read_saved(source, path, splits, explicit=explicit)
        return read_files(source, path, splits, explicit=explicit, options=options)
    if not path.exists() and str(source) != "-":
        if isinstance(source, str) and HUB_ID.fullmatch(source) and not is_data_name(source):
            return read_hub(source, path, splits, explicit=explicit)
        raise UserError(f"{source}: no such file or folder{neighbours(path)}")
    if explicit:
        raise UserError(
            f"{source}: is one file, so there is no split '{split}' to pick; leave the split out"
        )
    if str(source) == "-":
        return read_text(sys.stdin.buffer.read(), "<stdin>", **options)
    return read_file(path, str(source), **options)


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """Return a row with fields read from other columns; raises UserError for a missing one."""
    for name, column in columns.items():
        if column not in row.fields:
            hint = nearest(column, row.fields)
            raise UserError(f"{row.where}: no column '{column}' to read '{name}' from; {hint}")
    taken = {*columns, *columns.values()}
    mapped = {name: row.fields[column] for name, column in columns.items()}
    return Row(mapped | {k: v for k, v in row.fields.items() if k not in taken}, row.where)
