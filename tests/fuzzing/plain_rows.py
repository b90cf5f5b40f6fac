"""A second, plain reader of rows: what a file says by its format alone, with no guess."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any


def plain_rows(file: Path, sign: str = ",", *, margin: bool = False) -> list[dict[str, Any]]:
    """Read the rows of a file whose dialect is known; blank lines are no rows."""
    data = file.read_bytes()
    if file.suffix == ".xlsx":
        return _sheet(file)
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(file).to_pylist()  # type: ignore[no-any-return]
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding)
    if file.suffix == ".json":
        read = json.loads(text)
        return list(read["data"] if isinstance(read, dict) else read)
    if file.suffix in (".jsonl", ".ndjson"):
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    table = csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=margin)
    rows = [row for row in table if any(cell.strip() for cell in row)]
    header = [name.strip() for name in rows[0]]
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def _sheet(file: Path) -> list[dict[str, Any]]:
    from openpyxl import load_workbook

    sheet = load_workbook(file, read_only=True).active
    assert sheet is not None
    header, *rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    return [
        {
            str(name): "" if cell is None else str(cell)
            for name, cell in zip(header, row, strict=True)
        }
        for row in rows
        if any(cell is not None for cell in row)
    ]
