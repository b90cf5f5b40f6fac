"""What a search finds in some minutes, beside presets and random search of the same time.

    python bench/search.py run --data ../shared/data --minutes 5
    python bench/search.py report

Each finished run is one line of ``bench/search.jsonl``, and is not run again. All systems are given
the same training rows and nothing else, and are scored on the whole test file. ``search`` and
``random`` tune the best settings again on all rows, within their time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import foreword as fw
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first, per_class
from foreword.prompt_search.searched import Searched

RECORDS = Path(__file__).with_suffix(".jsonl")
SYSTEMS = ("balanced", "best", "search", "random")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Set:
    """A data set: how many rows are drawn by the seed, of each label where ``by_label``."""

    name: str
    task: str
    rows: int
    by_label: bool = False


SETS = {
    each.name: each
    for each in (
        Set("sst2", "classify", 256),
        Set("ag_news", "classify", 256),
        Set("sms_spam", "classify", 256),
        Set("banking77", "classify", 10, by_label=True),
        Set("stsb", "score", 500),
        Set("e2e", "generate", 500),
    )
}
"""The sets; spam stands where the issue asks for question types, which the data does not have."""


def rows_of(kind: Set, data: Path, seed: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the training rows that a seed draws, and all test rows."""
    folder = data / kind.name
    train = folder / "train.jsonl"
    every = as_rows(train if train.exists() else folder / "train.jsonl.gz")
    drawn = per_class(every, kind.rows, seed, "label") if kind.by_label else None
    return drawn or first(every, kind.rows, seed), as_rows(folder / "test.jsonl")


@contextmanager
def at_random() -> Iterator[None]:
    """Let a search choose all settings at random, and begin with none that is known."""
    from optuna.samplers import RandomSampler

    def sampler(seed: int | None = None, **settings: Any) -> RandomSampler:
        return RandomSampler(seed)

    with (
        mock.patch("optuna.samplers.TPESampler", sampler),
        mock.patch("foreword.prompt_search.budget.next_trial", _anything),
    ):
        yield


def _anything(study: Any, space: Any, left: float, seconds: Any, **more: Any) -> dict[str, Any]:
    return {}


def run(kind: Set, system: str, seed: int, minutes: float, data: Path) -> dict[str, Any]:
    """Return the record of one run."""
    train, test = rows_of(kind, data, seed)
    model = fw.load("smollm2")
    began, more = time.monotonic(), dict[str, Any]()
    if system in ("balanced", "best"):
        prompt = fw.tune(model, kind.task, train=train, preset=system, seed=seed)
    else:
        given = {"train": train, "minutes": minutes, "refit": True, "seed": seed}
        with at_random() if system == "random" else mock.patch.dict({}, {}):
            found = fw.search(model, kind.task, **given)
        prompt, more = found.prompt, about(found)
    seconds = time.monotonic() - began
    scored = fw.evaluate(prompt, test)
    return {
        "task": asdict(kind),
        "system": system,
        "seed": seed,
        "minutes": minutes,
        "metric": scored.headline,
        "score": scored.score,
        "interval": list(scored.interval),
        "test_rows": len(test),
        "seconds": round(seconds, 1),
        "load": round(os.getloadavg()[2], 1),
        **more,
    }


def about(found: Searched) -> dict[str, Any]:
    """Say what a search chose, and the best dev score over time."""
    curve: list[tuple[float, float]] = []
    ended = [t for t in found.trials if t.state == "complete" and t.ended is not None]
    for trial in sorted(ended, key=lambda each: each.ended or 0.0):
        if not curve or (trial.score or -math.inf) > curve[-1][1]:
            curve.append((round(trial.ended or 0.0, 1), trial.score or 0.0))
    return {
        "method": found.best.method,
        "settings": dict(found.best.settings),
        "trials": len(found.trials),
        "dev": found.best.score,
        "held_back": None if found.held is None else found.held.score,
        "curve": curve,
    }


def report(records: Sequence[dict[str, Any]]) -> str:
    """Return a table: the mean score of each system, and of search less each other, by seed."""
    lines = ["| set | " + " | ".join(SYSTEMS) + " | search less best, by seed |"]
    lines.append("|---" * (len(SYSTEMS) + 2) + "|")
    for name in SETS:
        own = {(r["system"], r["seed"]): r["score"] for r in records if r["task"]["name"] == name}
        if not own:
            continue
        cells = []
        for system in SYSTEMS:
            scores = [score for (which, _), score in own.items() if which == system]
            cells.append(f"{statistics.mean(scores):.1f} ({len(scores)})" if scores else "")
        pairs = [
            f"{own['search', seed] - own['best', seed]:+.1f}"
            for seed in SEEDS
            if {("search", seed), ("best", seed)} <= own.keys()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {', '.join(pairs)} |")
    return "\n".join(lines)


def read_records() -> list[dict[str, Any]]:
    """Return the records of runs that have ended."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text("utf-8").splitlines()]


def main(words: Sequence[str] | None = None) -> None:
    """Run what has not been run, or report what has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args(words)
    if given.what == "report":
        print(report(read_records()))
        return
    done = {(r["task"]["name"], r["system"], r["seed"], r["minutes"]) for r in read_records()}
    for seed in given.seeds:
        for name in given.sets:
            for system in given.systems:
                if (name, system, seed, given.minutes) in done:
                    continue
                record = run(SETS[name], system, seed, given.minutes, given.data)
                with RECORDS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
