"""A study of two processes, one of which is killed, beside one process of the same total time.

    python bench/search_shared.py --data ../shared/data --model ./minilm --seconds 20 --seed 0

Prints a JSON object. All times are processor time of one thread in each process. The process that
is killed has a third of the time, and the other one two thirds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import foreword as fw
from foreword.data.rows import as_rows
from foreword.data.sample import first
from foreword.prompt_search.search import search_prompts
from foreword.reporter import Reporter
from foreword.training.configure import make_task

ROWS = 250
"""Training rows of SST-2 that a seed draws."""


class Finished(Reporter):
    """Writes down the numbers of trials that have ended, as they end."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def line(self, text: str) -> None:
        """Keep the number of a trial."""
        if found := re.match(r"trial (\d+):", text):
            with self.file.open("a") as file:
                file.write(f"{found[1]}\n")


def take_part(given: argparse.Namespace) -> None:
    """Search in a process, which kills itself when it has used its time if it is to be killed."""
    torch.set_num_threads(1)
    rows = first(as_rows(given.data / "sst2" / "train.jsonl"), ROWS, given.seed)
    model = fw.load(given.model)
    began = time.process_time()
    dies = began + given.seconds if given.killed else math.inf

    def clock() -> float:
        now = time.process_time()
        if now > dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return now

    found = search_prompts(
        model,
        make_task("classify", {}),
        given.methods.split(","),
        {},
        rows,
        None,
        None,
        minutes=(10.0 if given.killed else 1.0) * given.seconds / 60,
        storage=given.storage,
        study="shared",
        join=given.join,
        seed=given.seed,
        report=Finished(Path(given.ended)),
        clock=clock,
    )
    held = found.held
    ended = [t.number for t in found.trials if t.state in ("complete", "pruned")]
    told = {"dev": found.best.score, "held_back": held and held.score, "ended": ended}
    print(json.dumps(told), flush=True)


def child(given: argparse.Namespace, **changes: Any) -> subprocess.Popen[str]:
    """Begin a process that takes part."""
    words = [sys.executable, __file__, "--part"]
    for name, value in {**vars(given), "part": None, **changes}.items():
        flag = f"--{name}"
        words += [flag] if value is True else [] if value in (None, False) else [flag, str(value)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Return what one process finds, and what two do of which one is killed."""
    with tempfile.TemporaryDirectory() as folder:
        alone = child(given, storage=f"sqlite:///{folder}/one.db", ended=f"{folder}/one")
        one = json.loads(alone.communicate()[0])
        url, third = f"sqlite:///{folder}/two.db", given.seconds / 3
        dying = child(given, storage=url, ended=f"{folder}/dead", seconds=third, killed=True)
        while dying.poll() is None and not Path(folder, "dead").exists():  # its first trial
            time.sleep(0.1)
        going = child(given, storage=url, ended=f"{folder}/two", seconds=2 * third, join=True)
        two = json.loads(going.communicate()[0])
        before, after = (_numbers(Path(folder, name)) for name in ("dead", "two"))
        return {
            "seed": given.seed,
            "seconds": given.seconds,
            "one": {**one, "ended": len(one["ended"])},
            "two": {**two, "ended": len(two["ended"])},
            "exit_status_of_the_killed": dying.wait(),
            "ended_before_the_kill": len(before),
            "lost": sorted({*before, *after} - {*two["ended"]}),
        }


def _numbers(file: Path) -> list[int]:
    """Return the numbers of trials that a process wrote down."""
    return list(map(int, file.read_text().split())) if file.exists() else []


def main(words: Sequence[str] | None = None) -> None:
    """Compare, or take part in a study as one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--methods", default="head")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--killed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--join", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--storage", help=argparse.SUPPRESS)
    parser.add_argument("--ended", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.part:
        take_part(given)
    else:
        print(json.dumps(compare(given)))


if __name__ == "__main__":
    main()
