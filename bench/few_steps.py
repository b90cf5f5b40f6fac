"""How many steps few rows need: the same run with more passes over them.

    python bench/few_steps.py run --data ../shared/data
    python bench/few_steps.py report

A run tunes the method that is chosen where none is named, on 32 rows, a tenth of them held back, in
batches of 16, for 4 passes or for 40 steps. It is scored on 100 other rows of the
training file, by the task's score and by the mean loss of a row's answer. No test row is read. Each
finished run is one line of ``bench/few_steps.jsonl``, and is not run again. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from search import SETS, Set, training_rows

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.data.sample import first
from foreword.evaluation.records import append_record, read_records
from foreword.metrics.paired import paired_difference
from foreword.prompt_search.chance import row_values
from foreword.reporter import SILENT

RECORDS = Path(__file__).with_suffix(".jsonl")
ROWS, OTHERS, BATCH = 32, 100, 16
STEPS = (8, 40)
"""Of 29 rows, in batches of 16: 4 passes and 20."""

KEPT = ("set", "steps", "seed", "score", "loss", "seconds")
ORDER = ("sst2", "e2e", "ag_news", "stsb")


def run(model: Backbone, kind: Set, steps: int, seed: int, data: Path) -> dict[str, Any]:
    """Return the record of one run."""
    every = training_rows(kind, data)
    train = first(every, ROWS, seed)
    used = {row.where for row in train}
    others = first([row for row in every if row.where not in used], OTHERS, seed)
    began = time.process_time()
    epochs = steps // math.ceil((ROWS - ROWS // 10) / BATCH)
    prompt = fw.tune(
        model, kind.task, None, train, epochs=epochs, batch_size=BATCH, seed=seed, report=SILENT
    )
    seconds = time.process_time() - began
    _, losses = row_values(prompt, others)
    written = kind.task == "generate"  # whose texts would take longer than the training
    score = None if written else round(fw.evaluate(prompt, others, report=SILENT).score, 2)
    return {
        "set": kind.name,
        "steps": steps,
        "seed": seed,
        "score": score,
        "loss": round(statistics.mean(losses), 4),
        "rows": [len(train), len(others)],
        "seconds": round(seconds, 1),
    }


def report(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a table: scores by steps, and the loss beside that of the fewest, in percent."""
    least = {(r["set"], r["seed"]): r for r in records if r["steps"] == STEPS[0]}
    lines = ["| set | steps | scores by seed | loss, % | s |", "|---" * 5 + "|"]
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for each in records:
        groups.setdefault((each["set"], each["steps"]), []).append(each)
    for (name, steps), own in sorted(groups.items()):
        scores = ", ".join("" if r["score"] is None else f"{r['score']:.1f}" for r in own)
        logs = [math.log(r["loss"] / least[name, r["seed"]]["loss"]) for r in own]
        lines.append(
            f"| {name} | {steps} | {scores} | {100 * math.expm1(statistics.mean(logs)):+.0f} | "
            f"{statistics.mean(r['seconds'] for r in own):.0f} |"
        )
    for steps in STEPS[1:]:
        pairs = [
            (math.log(r["loss"]), math.log(least[r["set"], r["seed"]]["loss"]))
            for r in records
            if r["steps"] == steps
        ]
        if len(pairs) > 1:
            found = paired_difference(*zip(*pairs, strict=True))
            low, high = (100 * math.expm1(each) for each in found.bounds(6))
            lines.append(
                f"| all | {steps} | | {100 * math.expm1(found.value):+.0f} "
                f"({low:+.0f} to {high:+.0f}) | |"
            )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Run what has not been run, or report what has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, default=RECORDS)
    given = parser.parse_args(words)
    if given.what == "report":
        print(report(read_records(given.out, KEPT)))
        return
    torch.set_num_threads(1)
    model = fw.load(given.model, report=SILENT)
    for seed in given.seeds:
        for name in given.sets:
            for steps in STEPS:
                asked = {"set": name, "steps": steps, "seed": seed}
                known = read_records(given.out, KEPT)
                if any(asked.items() <= each.items() for each in known):
                    continue
                made = run(model, SETS[name], steps, seed, given.data)
                print(json.dumps(made), flush=True)
                append_record(given.out, made)


if __name__ == "__main__":
    main()
