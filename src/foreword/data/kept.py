"""Rows that a run keeps beside what it makes, and goes on from when it is called again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foreword.data.read import read_rows
from foreword.errors import UserError


def read_kept(path: Path, what: str) -> list[dict[str, Any]]:
    """Return the rows that runs have kept in a file, none where there is none.

    Each says in ``run`` of which it is. Raises UserError for rows that no run has written, as they
    would be lost; ``what`` is what they are not.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    rows = read_rows(path)
    for row in rows:
        if "run" not in row.fields:
            raise UserError(
                f"{row.where}: is no {what}, which are kept here; move this file, or name another "
                "`out`"
            )
    return [dict(row.fields) for row in rows]
