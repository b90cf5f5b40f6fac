"""Spreadsheets: the first sheet of an Excel workbook, with the cells as the texts they show."""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foreword.data.bad_rows import OnBad
from foreword.data.row import Row
from foreword.data.tables import under_header
from foreword.data.values import date_text
from foreword.errors import UserError

AS_CSV = "save it as CSV (in Excel: Save As, CSV UTF-8)"

DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),  # of the archive
    *(SyntaxError, KeyError, ValueError, IndexError),  # of the XML in it
)
"""What openpyxl raises for a file that is no whole workbook."""


def read_spreadsheet(path: Path, name: str, *, on_bad: OnBad) -> Iterator[Row]:
    """Read the rows of a workbook's first sheet under its header; all cells become texts.

    ``on_bad`` is given the error of each row with a cell beyond the header's. Raises UserError
    where openpyxl is not installed, and for a file that is no workbook.
    """
    try:
        import openpyxl  # slow to import
    except ModuleNotFoundError:
        raise UserError(
            f"{name}: reading .xlsx needs openpyxl; pip install 'foreword[excel]', or {AS_CSV}"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions that are not read
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # which some programs write wrongly
            rows = [[as_text(cell) for cell in row] for row in sheet.iter_rows()]
            book.close()
            bare = None if all(map(all, rows)) else _formula_without_value(path, rows)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: not a whole .xlsx file ({reason}); {AS_CSV}") from None
    if bare is not None:
        raise UserError(
            f"{name}:{bare}: a formula here has no value, since the program that wrote the file "
            "computes none; open it in Excel or LibreOffice and save it, or write the value"
        )
    width = max(map(len, rows), default=0)
    padded = ((n, [*row, *[""] * (width - len(row))]) for n, row in enumerate(rows, start=1))
    mend = "name the column of each cell"
    return under_header(padded, name, mend=mend, on_bad=on_bad)


def _formula_without_value(path: Path, rows: list[list[str]]) -> int | None:
    """Return the first row with a formula that was read as an empty cell, None if there is none."""
    import openpyxl

    with zipfile.ZipFile(path) as parts:
        sheets = [parts.read(name) for name in parts.namelist() if "/worksheets/" in name]
    if not any(b"<f>" in sheet or b"<f " in sheet for sheet in sheets):
        return None
    book = openpyxl.load_workbook(path, read_only=True)
    sheet = book.worksheets[0]
    sheet.reset_dimensions()
    found = None
    for number, (row, texts) in enumerate(zip(sheet.iter_rows(), rows, strict=False), start=1):
        if any(c.data_type == "f" and not text for c, text in zip(row, texts, strict=False)):
            found = number
            break
    book.close()
    return found


def as_text(cell: Any) -> str:
    """Return a cell as the text that a spreadsheet shows, as it would be in a CSV file."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int) and re.fullmatch("0+", cell.number_format):
        return str(value).zfill(len(cell.number_format))
    if isinstance(value, datetime.date | datetime.time):
        return date_text(value)
    return str(value)
