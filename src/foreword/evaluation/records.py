"""Records: a JSON line for every run of a comparison or a benchmark, and their summary."""

from __future__ import annotations

import errno
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.errors import UserError
from foreword.files import file_to_write

Record = dict[str, Any]
COMPARED = ("key", "method", "seed")
"""What every record of a comparison has."""


def read_records(path: Path, names: Sequence[str] = COMPARED) -> list[Record]:
    """Read the records of a file, if there is one; a line that was cut off is skipped.

    ``names`` are the keys that every record must have.

    Raises UserError for what is no file, and for a file that holds something else.
    """
    file_to_write(path)
    if not path.exists():
        return []
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another `out`") from None
    found: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if line[:1] in ("", "{"):  # none, or one that was cut off
                continue
            record = None
        if not isinstance(record, dict) or not set(names) <= record.keys():
            raise UserError(f"{path}:{number}: is no record of a run; choose another `out`")
        found.append(record)
    return found


def ensure_folder(path: Path) -> Path:
    """Create the folder of a file of records if it is missing, and return it.

    Raises UserError if it cannot be created, or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise UserError(f"{path}: {reason}; choose another `out`") from None
    return path.parent


def append_record(path: Path, record: Record) -> None:
    """Append a record as a new line, even after a line that was cut off."""
    ensure_folder(path)
    try:
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise UserError(f"{path}: {reason}; choose another `out`") from None


def summarise(records: Sequence[Record]) -> list[Record]:
    """Summarise the runs of each method and its settings, over the seeds.

    ``score`` is a mean, ``interval`` the mean of the bootstrap intervals over the test rows,
    ``spread`` the standard deviation of the scores, None for a single seed, and ``peak_mib`` the
    highest. ``varied`` has the settings, by name, in which entries of one method differ. If runs
    failed, ``error`` is the last one's; if all of them did, there is no score.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        about = [record["method"], settings_of(record)]
        groups.setdefault(json.dumps(about, sort_keys=True, default=str), []).append(record)
    settings = [settings_of(own[0]) for own in groups.values()]
    names = [own[0]["method"] for own in groups.values()]
    varied = _varied(names, settings)
    return [
        {
            **_summarise_method(own[0]["method"], own),
            "varied": {name: each[name] for name in varied if name in each},
        }
        for own, each in zip(groups.values(), settings, strict=True)
    ]


def settings_of(record: Mapping[str, Any]) -> Record:
    """Return all settings of a run but its seed, by name; of methods together the first's count.

    The learning rate is the training's, where that has one, and else the method's own.
    """
    found: Record = {}
    data, model = record.get("data") or {}, dict(record.get("model") or {})
    training = record.get("training") or {}
    _collect(found, {"model": model.pop("name", None), **model})
    _collect(found, {name: data.get(name) for name in ("rows", "per_label")})
    _collect(found, {k: v for k, v in (record.get("task") or {}).items() if k != "name"})
    _collect(found, record.get("settings") or {})
    _collect(found, training)
    if training.get("rate") is not None:
        found["rate"] = training["rate"]
    found.pop("seed", None)
    return found


def _collect(found: Record, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name == "decoding":
            _collect(found, value)
        elif name == "methods":
            for part in value:
                _collect(found, part)
        else:
            found.setdefault(name, value)


def _varied(methods: Sequence[str], settings: Sequence[Record]) -> list[str]:
    """Return the names of settings in which two entries of one method differ."""
    seen: dict[tuple[str, str], set[str]] = {}
    for method, own in zip(methods, settings, strict=True):
        for name, value in own.items():
            seen.setdefault((method, name), set()).add(json.dumps(value, default=str))
    return list(dict.fromkeys(name for (_, name), values in seen.items() if len(values) > 1))


def _summarise_method(name: str, records: Sequence[Mapping[str, Any]]) -> Record:
    shown = ("seed", "score", "interval", "seconds", "peak_mib", "scores", "error")
    ended = [record for record in records if "error" not in record]
    scores = [record["score"] for record in ended]
    made: Record = {
        "method": name,
        "headline": ended[-1]["headline"] if ended else None,
        "score": round(statistics.mean(scores), 4) if ended else None,
        "interval": [
            round(statistics.mean(record["interval"][end] for record in ended), 4) for end in (0, 1)
        ]
        if ended
        else None,
        "spread": round(statistics.stdev(scores), 4) if len(scores) > 1 else None,
        "seeds": [{key: record[key] for key in shown if key in record} for record in records],
        "parameters": ended[-1]["parameters"] if ended else None,
        "bytes": ended[-1]["bytes"] if ended else None,
        "seconds": round(statistics.mean(r["seconds"] for r in ended), 2) if ended else None,
        "peak_mib": max(record["peak_mib"] for record in ended) if ended else None,
    }
    failed = [record["error"] for record in records if "error" in record]
    return {**made, "error": failed[-1]} if failed else made
