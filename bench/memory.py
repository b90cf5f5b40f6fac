"""Memory against time a step: one training under budgets from tight to none.

    python bench/memory.py MODEL --sst2 train.jsonl --budgets 3.5GB,4GB,5GB,none

A process for each budget opens the model, takes steps on the same batches (prefix 20, 16 rows of
64 to 250 tokens of text), and says its peak of resident memory, from its start and from the first
step, beside what was foreseen. Losses and gradients must be those without a budget. A finished
point is a line of ``bench/memory.jsonl``; the same command goes on with those that are missing.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, CycloptsError, Parameter
from train_cases import REVIEWS, Case, rows_for
from train_foreword import ForewordSide, begin
from train_memory import begin_peak, peak
from train_models import open_model

from foreword.backbone.backbone import Backbone
from foreword.display import console
from foreword.errors import UserError
from foreword.evaluation.records import append_record, read_records

RECORDS = Path(__file__).with_name("memory.jsonl")
NAMES = ("model", "budget", "batch", "steps", "rows")
NONE = "none"

app = App(name="bench", help="Memory against time a step.", version_flags=[])


@app.default
def run(
    model: str = "smollm2",
    /,
    *,
    sst2: Annotated[Path, Parameter(help="rows with text and label")] = REVIEWS,
    budgets: Annotated[str, Parameter(help="sizes, and none, joined by commas")] = NONE,
    batch: Annotated[int, Parameter(help="rows a step")] = 16,
    steps: Annotated[int, Parameter(help="steps of each point")] = 1,
    out: Annotated[Path, Parameter(help="the file of records")] = RECORDS,
    only: Annotated[str | None, Parameter(name="--worker", show=False)] = None,
) -> None:
    """Measure the points that have no record yet, and print all of the model's."""
    if only is not None:
        console.emit(worker(model, sst2, only, batch, steps))
        return
    name = Path(model).stem if Path(model).exists() else model
    rows = f"{sst2.parent.name}/{sst2.name}"
    for budget in budgets.split(","):
        about = dict(zip(NAMES, (name, budget, batch, steps, rows), strict=True))
        if any({key: each[key] for key in about} == about for each in read_records(out, NAMES)):
            continue
        console.say(f"{name}, {budget}")
        command = [sys.executable, __file__, model, "--sst2", str(sst2), "--worker", budget]
        command += ["--batch", str(batch), "--steps", str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            console.say(f"{name}, {budget}: no figures")
            continue
        append_record(out, {**about, **json.loads(done.stdout)})
    for line in table([r for r in read_records(out, NAMES) if r["model"] == name]):
        console.line(line)


def worker(model: str, sst2: Path, budget: str, batch: int, steps: int) -> dict[str, Any]:
    """Take steps under a budget; return memory in MB, seconds, the plan, losses and gradients."""
    source = open_model(model, "float32", "cpu", {"sst2": sst2}, 0)
    backbone = Backbone(
        source.model, source.tokenizer, architecture="causal", name=source.name, in_place=True
    )
    case = Case("prefix", 20, batch=batch, long=True)
    rows = rows_for(case, {"sst2": sst2}, steps, 0, backbone.text)
    memory = None if budget == NONE else budget
    loading = peak("cpu")
    began = time.perf_counter()
    loop = begin(backbone, case, rows, 0, "off", memory=memory)
    planning = time.perf_counter() - began
    backbone.checkpointing(loop.examples.plan.recompute)  # as Loop.go does
    side = ForewordSide(loop)
    gc.collect()
    loaded = begin_peak("cpu")
    times, busy, losses, norms = [], [], [], []
    for number in range(steps):
        began, worked = time.perf_counter(), time.process_time()
        found = side.read(number)
        times.append(round(time.perf_counter() - began, 2))
        busy.append(round(time.process_time() - worked, 2))
        losses.append(found.loss)
        norms.append(float(found.gradient.double().norm()))
    plan = loop.examples.plan
    unit = 2**20 / 1e6
    return {
        "opening": round(loading * unit),
        "loaded": round(loaded * unit),
        "peak": round(max(loaded, peak("cpu")) * unit),
        "foreseen": None if plan.peak is None else round(plan.peak / 1e6),
        "tokens": plan.tokens,
        "scores": plan.scores,
        "recompute": plan.recompute,
        "planning": round(planning, 1),
        "seconds": times,
        "cpu_seconds": busy,
        "losses": losses,
        "norms": norms,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }


def table(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table, and how far losses and gradients are from those without."""
    yield "| --memory | peak GB | foreseen | tokens a pass | recomputed | CPU seconds a step |"
    yield "|---|---|---|---|---|---|"
    for each in sorted(records, key=lambda r: (r["budget"] == NONE, r["peak"])):
        foreseen = "" if each["foreseen"] is None else f"{each['foreseen'] / 1000:.2f}"
        seconds = " ".join(f"{value:.0f}" for value in each["cpu_seconds"])
        yield (
            f"| {each['budget']} | {each['peak'] / 1000:.2f} | {foreseen} | {each['tokens']} | "
            f"{'yes' if each['recompute'] else 'no'} | {seconds} |"
        )
    plain = next((each for each in records if each["budget"] == NONE), None)
    if plain is not None:
        apart = [
            abs(one / other - 1)
            for each in records
            for what in ("losses", "norms")
            for one, other in zip(each[what], plain[what], strict=True)
        ]
        yield f"\nlosses and gradients' norms: at most {max(apart):.1e} apart"


if __name__ == "__main__":
    try:
        app(exit_on_error=False)
    except (UserError, CycloptsError) as error:
        sys.exit(f"bench: {error}")
