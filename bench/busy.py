"""A small training alone and beside a busy process, by how its threads wait for each other.

    python bench/busy.py --runs 3

Runs the whole command `foreword train --method soft` on the reviews of `examples/`, with one
setting after the other, alone and with one other process that computes all the time. A run is a
process of its own, so each setting is read anew. Prints the median of seconds, with the range.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from foreword.threads import CHOSEN

ROWS = Path(__file__).parent.parent / "examples" / "reviews"
SETTINGS: dict[str, dict[str, str]] = {
    "foreword's own": {},
    "spinning (GNU's default)": {"GOMP_SPINCOUNT": "300000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}

app = App(name="bench", help="A training beside a busy process.", version_flags=[])


@contextmanager
def busy(others: int) -> Iterator[None]:
    """Run processes that compute all the time, until the end of the block."""
    loop = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop) for _ in range(others)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(command: list[str], settings: dict[str, str]) -> float:
    """Run a command under settings of its environment and return the seconds that it took."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    environment.pop("OMP_NUM_THREADS", None)
    began = time.monotonic()
    subprocess.run(command, env={**environment, **settings}, check=True, capture_output=True)
    return time.monotonic() - began


@app.default
def run(
    *,
    runs: Annotated[int, Parameter(help="of each setting")] = 3,
    model: Annotated[str, Parameter(help="a name, a folder or a file")] = "smollm2",
    others: Annotated[int, Parameter(help="busy processes beside the second time")] = 1,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Time the training under each setting, alone and beside busy processes."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"alone": [], "beside": []} for name in SETTINGS
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "foreword", "train", "--model", model, "--method", "soft"),
            *("--train", str(ROWS / "train.jsonl"), "--dev", str(ROWS / "dev.jsonl")),
            *("--template", "Review: {text}\\nSentiment:", "--epochs", "2"),
            *("--out", f"{folder}/p.safetensors"),
        ]
        for _ in range(runs):  # in turn, so that the machine's own changes meet all alike
            for name, settings in SETTINGS.items():
                found[name]["alone"].append(seconds(command, settings))
                with busy(others):
                    found[name]["beside"].append(seconds(command, settings))
    if as_json:
        print(json.dumps(found))
        return
    print(f"{'seconds':26}{'alone':>20}{'beside ' + str(others):>22}")
    for name, times in found.items():
        cells = [
            f"{statistics.median(each):.1f} ({min(each):.1f}-{max(each):.1f})"
            for each in times.values()
        ]
        print(f"{name:26}{cells[0]:>20}{cells[1]:>22}")


if __name__ == "__main__":
    app()
