"""Records: one JSON line a run, by which a rerun knows what is done, and the report is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foreword.errors import UserError

Record = Mapping[str, Any]
_PACKAGES = ("foreword", "peft", "torch", "transformers", "tokenizers")
_NAMES = ("task", "system", "seed", "settings")


def read(path: Path) -> list[Record]:
    """Return the records of a file, none where there is no file.

    A line that a kill has cut off is left out. Raises UserError for a file that is no such one.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    found: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict) or not {*_NAMES, "curve"} <= record.keys():
            raise UserError(f"{path}:{number}: is no record of a run; choose another --out")
        found.append(record)
    return found


def add(path: Path, record: Record) -> None:
    """Append a record, on a line of its own whatever a killed run has left, to the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise UserError(f"{path}: {reason}; choose another --out") from None


def find(records: Sequence[Record], asked: Record) -> Record | None:
    """Return the last record of a run with the same task, system, seed and settings."""
    wanted = {name: json.loads(json.dumps(asked[name])) for name in _NAMES}
    for record in reversed(records):
        if all(record[name] == value for name, value in wanted.items()):
            return record
    return None


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's time."""
    return {name: version(name) for name in _PACKAGES}
