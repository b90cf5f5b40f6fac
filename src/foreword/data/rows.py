"""Rows in: whatever people keep their rows in, as a list of rows in canonical shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from foreword.data.hub import dataset_records
from foreword.data.read import read_rows, rename
from foreword.data.row import Row
from foreword.data.shapes import canonical
from foreword.errors import UserError

Rows: TypeAlias = "str | Path | Iterable[Row | Mapping[str, Any]] | Any"
"""A path or hub id; rows or dicts; a pandas or polars DataFrame; a `datasets.Dataset`."""


def as_rows(
    source: Rows,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | Sequence[str] | None = None,
    targets: bool = True,
    name: str = "row",
) -> list[Row]:
    """Return rows in canonical shape (shapes.py), whatever holds them.

    ``columns`` maps a field's name to the column it is read from, ``split`` picks a part of a
    folder or a hub id. Without ``targets``, rows may lack what they would be learned by. Rows that
    come from no file are called by ``name`` and their number from 1, as in ``row 3``.

    Raises UserError for what is none of these, and for whatever is wrong with a row.
    """
    if isinstance(source, str | Path):
        rows = read_rows(source, columns=columns, split=split)
    else:
        records = enumerate(_records(source), start=1)
        rows = [_row(record, f"{name} {number}") for number, record in records]
        rows = [rename(row, columns) for row in rows] if columns else rows
    return canonical(rows, targets=targets)[1]


def _records(source: Any) -> Iterable[Any]:
    """Return the records of rows in memory; tables give one dict a row."""
    if hasattr(source, "to_dicts"):  # polars
        return source.to_dicts()  # type: ignore[no-any-return]
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        return source.to_dict("records")  # type: ignore[no-any-return]
    if hasattr(source, "features") and hasattr(source, "to_list"):  # datasets
        return dataset_records(source)
    if hasattr(source, "column_names"):  # a datasets.DatasetDict
        raise UserError(
            f"rows are of type {type(source).__name__}; pick one of its splits, such as "
            "rows['train']"
        )
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise UserError(
            f"rows are of type {type(source).__name__}; give a path, a list of dicts, a DataFrame "
            "or a datasets.Dataset"
        )
    return source


def _row(record: Any, where: str) -> Row:
    if isinstance(record, Row):
        return record
    if isinstance(record, Mapping):
        return Row(record, where)
    raise UserError(
        f"{where} is of type {type(record).__name__}; give objects such as "
        '{"text": ..., "label": ...}'
    )
