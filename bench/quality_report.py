"""The report: when each curve first reaches the best score of PEFT's soft prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from quality_records import Record
from quality_trace import Point
from rich.table import Table

REFERENCE = "peft-soft"
NOTES = (
    "seconds: until the score first reaches peft-soft's best of the same seed; loading and scoring",
    "are not counted. ratio: peft-soft's seconds to that best, by the system's. peft-prefix and",
    "peft-lora stop there, so that their best is no limit of theirs.",
)


def best(curve: Sequence[Point]) -> float:
    """Return the highest score of a curve."""
    return max(point.score for point in curve)


def reached(curve: Sequence[Point], score: float) -> float | None:
    """Return the seconds until a curve first has a score, None where it never does."""
    return next((point.seconds for point in curve if point.score >= score), None)


def summary(records: Sequence[Record]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each task and system, seed by seed: ``best``, ``seconds`` and ``ratio``.

    None stands for what was not reached, and where PEFT's soft prompt has not been run; a median
    over seeds takes it for never. Of runs under different settings the latest count.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in dict.fromkeys(record["task"] for record in records):
        curves = _curves([record for record in records if record["task"] == task])
        found[task] = {}
        for name in dict.fromkeys(name for name, _ in curves):
            seeds = sorted(seed for other, seed in curves if other == name)
            each = [_one(curves[name, seed], curves.get((REFERENCE, seed))) for seed in seeds]
            columns: dict[str, list[Any]] = {key: [one[key] for one in each] for key in each[0]}
            found[task][name] = {"seeds": seeds, **columns}
            if len(seeds) > 1:
                found[task][name]["median"] = {
                    "best": median(columns["best"]),
                    "seconds": _median(columns["seconds"], math.inf),
                    "ratio": _median(columns["ratio"], 0.0),
                }
    return found


def _curves(records: Sequence[Record]) -> dict[tuple[str, int], list[Point]]:
    """Return the latest curve of each system and seed, among those that may be compared."""
    common = records[-1]["settings"]["common"]
    return {
        (record["system"], record["seed"]): [Point(*point) for point in record["curve"]]
        for record in records
        if record["settings"]["common"] == common
    }


def _one(curve: Sequence[Point], reference: Sequence[Point] | None) -> dict[str, float | None]:
    if reference is None:
        return {"best": best(curve), "seconds": None, "ratio": None}
    target = best(reference)
    seconds, theirs = reached(curve, target), reached(reference, target)
    assert theirs is not None
    ratio = None if seconds is None else theirs / max(seconds, 1e-9)
    return {"best": best(curve), "seconds": seconds, "ratio": ratio}


def _median(values: Sequence[float | None], never: float) -> float | None:
    found = median(never if value is None else value for value in values)
    return None if found == never else found


def race_tables(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Table]:
    """Lay out a table a task: three lines a system, a column a seed, and their median."""
    made = []
    for task, systems in found.items():
        seeds = sorted({seed for each in systems.values() for seed in each["seeds"]})
        table = Table(title=task, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        table.add_column("")
        for seed in seeds:
            table.add_column(f"seed {seed}", justify="right")
        if len(seeds) > 1:
            table.add_column("median", justify="right")
        never = "not reached" if REFERENCE in systems else "not known"
        for name, each in systems.items():
            for key, shown, digits in (
                ("best", "best dev score", 2 if each["best"][0] >= 0 else 4),
                ("seconds", f"seconds to {REFERENCE}'s best", 1),
                ("ratio", "ratio", 2),
            ):
                row = dict(zip(each["seeds"], each[key], strict=True))
                cells = [_cell(row[s], digits, never) if s in row else "-" for s in seeds]
                if len(seeds) > 1:
                    middle = each["median"][key] if "median" in each else each[key][0]
                    cells.append(_cell(middle, digits, never))
                table.add_row(name if key == "best" else "", shown, *cells)
        made.append(table)
    return made


def _cell(value: float | None, digits: int, never: str) -> str:
    return never if value is None else f"{value:.{digits}f}"
