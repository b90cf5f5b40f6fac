"""Models that fit a laptop, side by side: the same rows, method and settings on each.

    python bench/models.py smollm2 e5-small=PATH qwen=PATH.gguf --page docs/models.md

A model is a name or NAME=PATH. On each set of rows (a folder of ``train.jsonl``, ``dev.jsonl`` and
``test.jsonl``) a prompt is tuned in a process of its own, by the default method of the model and
its rows, and scored on the test rows; ``--epochs`` and ``--batch-size`` too are theirs, unless
given. Each finished run is a line of ``--out``, and the same command goes on after the last of
them. ``--page`` writes the table of all of ``--out`` into a page, between two marks. Times are
processor seconds, which neighbours on the machine change little; memory is the peak while tuning
(Linux).
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, CycloptsError, Parameter

import foreword as fw
from foreword.errors import UserError
from foreword.evaluation.apart import call_apart
from foreword.evaluation.records import Record, append_record, read_records
from foreword.evaluation.request_time import REQUESTS
from foreword.files import write_whole
from foreword.reporter import SILENT, Reporter

ROOT = Path(__file__).parent.parent
SETTINGS: Mapping[str, Any] = {"method": "auto"}
"""What is the same for all models; all that is not given has its default."""

NAMES = ("model", "data", "seed", "settings")
KEPT = (*NAMES, "score", "interval", "step", "request", "bytes", "peak", "loaded")
MARKS = "<!-- models -->", "<!-- /models -->"
HEADER = "| model | rows | score | s a step | GB to tune (alone) | ms a request | prompt, MB |"

app = App(name="bench", help="One table over models.", version_flags=[])


@app.default
def run(
    models: Annotated[list[str], Parameter(help="NAME, or NAME=PATH")],
    *,
    data: Annotated[list[str], Parameter(help="NAME=FOLDER")] = [  # noqa: B006
        "support=examples/support",
        "zh=examples/zh",
    ],
    seeds: Annotated[int, Parameter(help="from 0")] = 1,
    rows: Annotated[int | None, Parameter(help="training rows; else all")] = None,
    epochs: Annotated[int | None, Parameter(help="else those of the model and its rows")] = None,
    batch_size: Annotated[int | None, Parameter(help="likewise")] = None,
    threads: Annotated[int, Parameter(help="of the CPU")] = 1,
    out: Annotated[Path, Parameter(help="a line a run is added here")] = ROOT
    / "bench/models.jsonl",
    page: Annotated[Path | None, Parameter(help="a page whose table is written anew")] = None,
) -> None:
    """Tune and score a prompt on each model and each set of rows."""
    known = read_records(out, KEPT)
    given = {"epochs": epochs, "batch_size": batch_size, "rows": rows}
    settings = {**SETTINGS, **{k: v for k, v in given.items() if v is not None}, "threads": threads}
    for seed in range(seeds):
        for folder in data:
            for model in models:
                name, _, path = model.partition("=")
                about = {
                    "model": name,
                    "data": folder.partition("=")[0],
                    "seed": seed,
                    "settings": settings,
                }
                if any({key: each[key] for key in NAMES} == about for each in known):
                    continue
                print(f"{name} on {about['data']}, seed {seed}", file=sys.stderr)
                found = {**about, **measured(path or name, folder.partition("=")[2], about)}
                append_record(out, found)
                known.append(found)
    table = "\n".join(table_of(known))
    print(table)
    if page is not None:
        write_table(page, table)


def measured(model: str, folder: str, about: Mapping[str, Any]) -> Record:
    """Return what a run measured, in a process of its own; raises UserError where it failed."""
    with tempfile.TemporaryDirectory() as name:
        status = call_apart(perform, model, folder, dict(about), Path(name), folder=Path(name))
        answer = Path(name) / "answer.json"
        if not answer.exists():
            raise UserError(f"{model}: its process ended with exit status {status}")
        found: Record = json.loads(answer.read_text("utf-8"))
        return found


class Steps(Reporter):
    """Keeps the processor time at which each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Keep the time."""
        self.times.append(time.process_time())


def perform(model: str, folder: str, about: dict[str, Any], out: Path) -> None:
    """Tune, score and time a prompt, and write what was measured to ``out``."""
    settings = dict(about["settings"])
    torch.set_num_threads(settings.pop("threads"))
    limit = settings.pop("rows", None)
    base = fw.load(model, report=SILENT)
    loaded, steps = memory("VmRSS"), Steps()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    train = fw.read_rows(f"{folder}/train.jsonl")[:limit]
    dev, test = (fw.read_rows(f"{folder}/{part}.jsonl") for part in ("dev", "test"))
    prompt = fw.tune(base, train=train, dev=dev, seed=about["seed"], report=steps, **settings)
    peak = memory("VmHWM")
    size = prompt.save(out / "prompt.safetensors").stat().st_size
    times = []
    for row in [test[0], *test[:REQUESTS]]:  # the first one makes what is made once
        began = time.process_time()
        prompt.predict([dict(row.fields)])
        times.append(time.process_time() - began)
    scores = fw.evaluate(prompt, test, report=SILENT)
    headline = prompt.bound.headline
    found = {
        "score": scores.score,
        "interval": scores.intervals[headline],
        "headline": headline,
        "rows": len(test),
        "method": prompt.method["name"],
        "step": statistics.median(
            b - a for a, b in zip(steps.times, steps.times[1:], strict=False)
        ),
        "request": 1000 * statistics.median(times[1:]),
        "bytes": size,
        "peak": peak,
        "loaded": loaded,
    }
    write_whole(out / "answer.json", json.dumps(found).encode())


def memory(name: str) -> int:
    """Return a size of this process, in bytes: VmRSS now, VmHWM at its peak (Linux)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def table_of(records: Sequence[Record]) -> list[str]:
    """Return the lines of a table: mean scores over seeds, with the first seed's interval.

    Times are those of the quickest seed, since neighbours and another processor only add to them.
    """
    lines = [HEADER, "|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[Record]] = {}
    for each in records:
        groups.setdefault((each["data"], each["model"]), []).append(each)
    for (data, model), own in sorted(groups.items()):

        def mean(key: str, own: Sequence[Record] = own) -> float:
            return statistics.mean(float(each[key]) for each in own)

        def least(key: str, own: Sequence[Record] = own) -> float:
            return min(float(each[key]) for each in own)

        low, high = own[0]["interval"]
        score = f"{mean('score'):.1f} ({low:.1f} to {high:.1f})"
        if len(own) > 1:
            score += " seeds " + ", ".join(f"{each['score']:.1f}" for each in own)
        lines.append(
            f"| {model} | {data} | {score} | {least('step'):.2f} "
            f"| {mean('peak') / 1e9:.1f} ({mean('loaded') / 1e9:.1f}) "
            f"| {least('request'):.0f} | {mean('bytes') / 1e6:.2f} |"
        )
    return lines


def write_table(page: Path, table: str, marks: tuple[str, str] = MARKS) -> None:
    """Write a table between the marks of a page; raises UserError where they are missing."""
    text = page.read_text("utf-8")
    before, mark, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (mark and end):
        raise UserError(f"{page}: has no {marks[0]} and {marks[1]} to write between")
    write_whole(page, f"{before}{mark}\n{table}\n{end}{after}".encode())


if __name__ == "__main__":
    try:
        app()
    except (UserError, CycloptsError) as error:
        sys.exit(f"bench/models.py: {error}")
