"""What a search finds in some minutes, beside presets and random search of the same time.

    python bench/search.py --data ../shared/data --minutes 5
    python bench/search_report.py

Each finished run is one line of ``bench/search.jsonl``, and is not run again. All systems are given
the same training rows and nothing else, and are scored on the whole test file. ``search`` and
``random`` tune the best settings again on all rows, within their time.

All times are processor time of one thread, which neighbours on the machine change less than the
time by the clock, though they do (a first look on Banking77 took 78 s, and one beside three other
programs 117); runs may go on at the lowest priority. The minutes are those of a machine with two
cores, so that a search has twice as many of one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import foreword as fw
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first, per_class
from foreword.prompt_search.search import search_prompts
from foreword.prompt_search.searched import Searched
from foreword.prompt_search.tried import Tried
from foreword.reporter import Reporter
from foreword.training.configure import make_task

RECORDS = Path(__file__).with_suffix(".jsonl")
TURNS = (("best", "search"), ("random", "balanced"))
"""What is compared, in the order in which it is run for a seed: the most telling first."""

SYSTEMS = tuple(system for turn in TURNS for system in turn)

CORES = 2
"""Cores whose processor time a minute has."""

PRESETS = ("balanced", "best")
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


def training_rows(kind: Set, data: Path) -> Sequence[Row]:
    """Return all rows of a set's training file."""
    train = data / kind.name / "train.jsonl"
    return as_rows(train if train.exists() else train.with_name("train.jsonl.gz"))


def rows_of(kind: Set, data: Path, seed: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the training rows that a seed draws, and all test rows."""
    every = training_rows(kind, data)
    drawn = per_class(every, kind.rows, seed, "label") if kind.by_label else None
    return drawn or first(every, kind.rows, seed), as_rows(data / kind.name / "test.jsonl")


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


def _anything(*arguments: Any, **named: Any) -> dict[str, Any]:
    return {}


def run(kind: Set, system: str, seed: int, minutes: float, data: Path) -> dict[str, Any]:
    """Return the record of one run."""
    train, test = rows_of(kind, data, seed)
    model = fw.load("smollm2")
    began, more = time.process_time(), dict[str, Any]()
    if system in PRESETS:
        prompt = fw.tune(model, kind.task, train=train, preset=system, seed=seed)
    else:
        heard = Heard(began)
        with at_random() if system == "random" else nullcontext():
            found = search_prompts(
                model,
                make_task(kind.task, {}),
                None,
                {},
                train,
                None,
                None,
                minutes=CORES * minutes,
                refit=True,
                seed=seed,
                report=heard,
                clock=time.process_time,
            )
        prompt, more = found.prompt, about(found, heard.ended)
    seconds = time.process_time() - began
    scored = fw.evaluate(prompt, test)
    right = [row.right for row in scored.rows]
    return {
        "task": asdict(kind),
        "system": system,
        "seed": seed,
        "minutes": None if system in PRESETS else minutes,
        "cores": None if system in PRESETS else CORES,
        "metric": scored.headline,
        "score": scored.score,
        "interval": list(scored.interval),
        "test_rows": len(test),
        "seconds": round(seconds, 1),
        **more,
        "right": None if None in right else "".join(str(int(bool(each))) for each in right),
    }


class Heard(Reporter):
    """Keeps after how many seconds each trial ended."""

    def __init__(self, began: float) -> None:
        self.began, self.ended = began, dict[int, float]()

    def line(self, text: str) -> None:
        print(text, flush=True)
        if found := re.match(r"trial (\d+):", text):
            self.ended[int(found[1])] = round(time.process_time() - self.began, 1)


def about(found: Searched, ended: Mapping[int, float]) -> dict[str, Any]:
    """Say what a search chose, and the best dev score over time."""
    curve: list[tuple[float, float]] = []
    for trial in (each for each in found.trials if each.state == "complete"):
        if trial.number in ended and (not curve or (trial.score or -math.inf) > curve[-1][1]):
            curve.append((ended[trial.number], round(trial.score or 0.0, 4)))
    return {
        "method": found.best.method,
        "settings": dict(found.best.settings),
        "best_trial": found.best.number,
        "trials": len(found.trials),
        "dev": found.best.score,
        "held_back": None if found.held is None else found.held.score,
        "first_prompt": curve[0][0] if curve else None,
        "curve": curve,
        "tried": [_tried(each) for each in found.trials],
    }


def _tried(trial: Tried) -> dict[str, Any]:
    score = None if trial.score is None else round(trial.score, 4)
    return {"method": trial.method, **trial.settings, "state": trial.state, "score": score}


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of runs that have ended."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def main(words: Sequence[str] | None = None) -> None:
    """Run what has not been run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    done = {
        (r["task"]["name"], r["system"], r["seed"], r["minutes"]) for r in read_records(RECORDS)
    }
    for seed, turn, name in itertools.product(given.seeds, TURNS, given.sets):
        for system in (each for each in turn if each in given.systems):
            minutes = None if system in PRESETS else given.minutes
            if (name, system, seed, minutes) in done:
                continue
            record = run(SETS[name], system, seed, given.minutes, given.data)
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
