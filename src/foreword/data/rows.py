"""Rows in: whatever people keep their rows in, as a list of rows in canonical shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from foreword.data.bad_rows import OnBad, convert, refuse
from foreword.data.formats import arrow_records
from foreword.data.hub import dataset_records
from foreword.data.nested import questions
from foreword.data.read import read_rows, rename
from foreword.data.row import Row
from foreword.data.shapes import canonical
from foreword.data.values import plain
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.reporter import SILENT, Reporter

Rows: TypeAlias = "str | Path | Iterable[Row | Mapping[str, Any]] | tuple[Any, Any] | Any"
"""A path or hub id; dicts or rows; ``(texts, labels)``; a pandas or polars DataFrame; a
`datasets.Dataset`."""

TAKEN = (
    "a path, a list of dicts, (texts, labels), a pandas or polars DataFrame, or a datasets.Dataset"
)


def as_rows(
    source: Rows,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | Sequence[str] | None = None,
    targets: bool = True,
    name: str = "row",
    fields: tuple[str, str] = ("text", "label"),
    delimiter: str | None = None,
    encoding: str | None = None,
    on_bad: OnBad = refuse,
    report: Reporter = SILENT,
) -> list[Row]:
    """Return rows in canonical shape (shapes.py), whatever holds them.

    ``columns`` maps a field's name to the column it is read from, ``split`` picks a part of a
    folder or a hub id. Without ``targets``, rows may lack what they would be learned by. Rows that
    come from no file are called by ``name`` and their number from 1, as in ``row 3``. ``fields``
    are those of ``(texts, labels)``. ``delimiter``, ``encoding``, ``on_bad`` and ``report`` are
    those of :func:`foreword.read_rows`: with ``on_bad=BadRows()`` bad rows are left out.

    Raises UserError for what is none of these, and for whatever is wrong with a row.
    """
    if isinstance(source, str | Path):
        rows = read_rows(
            source,
            columns=columns,
            split=split,
            delimiter=delimiter,
            encoding=encoding,
            on_bad=on_bad,
            report=report,
        )
    else:
        records = [each for given in records_of(source, fields) for each in _records_in(given)]
        rows = [_row(record, f"{name} {number}") for number, record in enumerate(records, start=1)]
        if columns:
            rows = list(convert(rows, lambda row: rename(row, columns), on_bad))
    return canonical(rows, targets=targets, on_bad=on_bad)[1]


def records_of(source: Any, fields: tuple[str, str] = ("text", "label")) -> Iterable[Any]:
    """Return what rows in memory consist of, mostly dicts; ``fields`` are those of a pair.

    Raises UserError for what holds no rows.
    """
    return _paired(source, fields) if _is_pair(source) else _records(source)


def shaped_like(
    source: Any, values: list[Any], name: str, columns: Iterable[str] | None = None
) -> Any:
    """Return values as what held their rows: a Series for tables and their columns, else a list.

    Dicts, which have these ``columns``, become a DataFrame.
    """
    library = type(source).__module__.partition(".")[0]
    if library not in ("pandas", "polars"):
        return values
    index = {"index": source.index} if library == "pandas" else {}
    module: Any = import_module(library)
    if columns is not None:
        given = {each: [value[each] for value in values] for each in columns}
        return module.DataFrame(given, **index)
    return module.Series(values, name=name, **index) if index else module.Series(name, values)


def _is_pair(source: Any) -> TypeGuard[tuple[Any, Any]]:
    """Whether this is a pair of columns, and not of two rows."""
    return (
        isinstance(source, tuple)
        and len(source) == 2
        and all(isinstance(each, Iterable) for each in source)
        and not any(isinstance(each, str | bytes | Mapping) for each in source)
    )


def _paired(source: tuple[Any, Any], fields: tuple[str, str]) -> list[dict[str, Any]]:
    """Return a record for each text, or row, and its label."""
    given, answers = values_of(_records(source[0])), values_of(source[1])
    if len(given) != len(answers):
        raise UserError(
            f"{counted(len(given), 'text')} and {counted(len(answers), 'label')}; give "
            "as many labels as texts"
        )
    pairs = zip(given, answers, strict=True)
    return [
        {**(text if isinstance(text, Mapping) else {fields[0]: text}), fields[1]: label}
        for text, label in pairs
    ]


def values_of(column: Iterable[Any]) -> list[Any]:
    """Return the values of a list, an array or a Series, those of numpy as Python's."""
    return [value.tolist() if hasattr(value, "tolist") else value for value in column]


def _records(source: Any) -> Iterable[Any]:
    """Return the records of rows in memory; tables give one dict a row, and None where empty."""
    if hasattr(source, "to_dicts"):  # polars
        return source.to_dicts()  # type: ignore[no-any-return]
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        names = source.columns.map(str)
        for name in names[names.duplicated()]:
            raise UserError(f"rows: two columns are named '{name}'; rename one")
        filled = source.astype(object).where(source.notna(), None)
        filled.columns = names
        return filled.to_dict("records")  # type: ignore[no-any-return]
    if hasattr(source, "features") and hasattr(source, "to_list"):  # datasets
        return dataset_records(source)
    if hasattr(source, "to_pylist") and hasattr(source, "schema"):  # pyarrow
        return arrow_records(source)
    if isinstance(source, Mapping) and hasattr(source, "column_names"):  # a datasets.DatasetDict
        raise UserError(
            f"rows are of type {type(source).__name__}; pick one of its splits, such as "
            "rows['train']"
        )
    if isinstance(source, bytes | Mapping) or not isinstance(source, Iterable):
        raise UserError(f"rows are of type {type(source).__name__}; give {TAKEN}")
    return source


def _records_in(given: Any) -> Iterable[Any]:
    """Return the questions of a document, one record each; of all else that itself."""
    return questions(given) if isinstance(given, Mapping) else (given,)


def _row(record: Any, where: str) -> Row:
    if isinstance(record, Row):
        return record
    if isinstance(record, Mapping):
        return Row(plain(record), where)
    hint = " or (texts, labels)" if isinstance(record, str) else ""
    raise UserError(
        f"{where} is of type {type(record).__name__}; give objects such as "
        f'{{"text": ..., "label": ...}}{hint}'
    )
