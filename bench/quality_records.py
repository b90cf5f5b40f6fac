"""Records: which run of the benchmark is which, in the lines of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

Record = Mapping[str, Any]
_PACKAGES = ("foreword", "peft", "torch", "transformers", "tokenizers")
_NAMES = ("task", "system", "seed", "settings")
KEPT = (*_NAMES, "curve")
"""What every record has."""


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
