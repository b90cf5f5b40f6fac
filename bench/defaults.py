"""What settings of each method are worth: one is changed at a time, on six sets and three seeds.

    python bench/defaults.py run --data ../shared/data [--dtype bfloat16]
    python bench/defaults.py report

A run tunes a method twice over 128 rows (3 of each intent of Banking77) in batches of 4, which are
the 64 steps of the preset ``balanced`` on 256 rows. It is scored on 100 other rows of the training
file: by the task's score, and by the mean loss of a row's answer, which tells settings apart where
scores of 100 rows cannot. No test row is read. A change that is losing in the runs so far has
no more of them. Each finished run is one line of ``bench/defaults.jsonl``, and is not run again.
Changes are compared with the method's own settings in the same type of numbers: what was begun in
another one goes on in that. One thread; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from search import SETS, Set, read_records, training_rows

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.sample import first, per_class
from foreword.methods.registry import METHODS
from foreword.metrics.paired import paired_difference
from foreword.prompt_search.chance import row_values
from foreword.prompt_search.trial import dev_score
from foreword.reporter import SILENT
from foreword.training.configure import make_task

RECORDS = Path(__file__).with_suffix(".jsonl")
SEEDS = (0, 1, 2)
ROWS, DEV_ROWS, PER_CLASS = 128, 100, 3
EPOCHS, BATCH = 2, 4

RATES: tuple[Mapping[str, Any], ...] = ({"rate": 1 / 3}, {"rate": 3.0})
"""Learning rates, as multiples of the method's own."""

CHANGES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "soft": (*RATES, {"start": "vocabulary"}, {"start": "demonstrations"}, {"length": 50}),
    "prefix": (*RATES, {"start": "text"}, {"shots": 8}),
    "ptuning": (*RATES, {"start": "vocabulary"}, {"encoder": "mlp"}),
    "deep": (*RATES, {"start": "demonstrations"}, {"length": 50}),
    "context": (*RATES, {"shots": 8}),
    "lora": (*RATES, {"rank": 4}, {"rank": 16}),
}
"""What is changed of each method, beside the run with its own settings."""

ORDER = ("sst2", "stsb", "e2e", "ag_news", "banking77", "sms_spam")
"""The sets as they are run: the first three are of different tasks."""

LEAST = 3
"""A change is dropped when its loss in as many runs is higher by more than a standard error."""

ENOUGH = len(ORDER)
"""A change is dropped when its loss in as many runs is not lower, be it by chance."""


def rows_of(kind: Set, data: Path, seed: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows that a seed draws from a training file: to train on, and to score on."""
    every = training_rows(kind, data)
    drawn = per_class(every, PER_CLASS, seed, "label") if kind.by_label else None
    drawn = drawn or first(every, min(ROWS, kind.rows), seed)
    used = {row.where for row in drawn}
    others = [row for row in every if row.where not in used]
    return drawn, first(others, min(DEV_ROWS, len(others)), seed)


def run(
    model: Backbone, kind: Set, method: str, change: Mapping[str, Any], seed: int, data: Path
) -> dict[str, Any]:
    """Return the record of one run."""
    train, dev = rows_of(kind, data, seed)
    made: Any = METHODS[method]()
    given = dict(change)
    if "rate" in given:
        given["rate"] = made.rate * given["rate"]
    began = time.process_time()
    prompt = fw.tune(
        model,
        make_task(kind.task, {}),
        replace(made, **given),
        train,
        dev,
        epochs=EPOCHS,
        batch_size=BATCH,
        refit="off",
        seed=seed,
        report=SILENT,
    )
    seconds = time.process_time() - began
    _, losses = row_values(prompt, dev)
    metric, score = dev_score(prompt)
    return {
        "set": kind.name,
        "method": method,
        "change": dict(change),
        "seed": seed,
        "settings": {"rate": made.rate, **given},
        "metric": metric,
        "score": round(score, 4),
        "loss": round(statistics.mean(losses), 4),
        "rows": [len(train), len(dev)],
        "seconds": round(seconds, 1),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def report(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a table: what each change does to the loss, and to scores that are accuracies.

    The loss is a ratio to that of the method's own settings on the same rows, less one, in percent:
    the geometric mean over sets and seeds, with its 95% interval. Below 0 the change is better.
    """
    lines = ["| method | change | loss, % | accuracy | better on | runs |", "|---" * 6 + "|"]
    for method, changes in CHANGES.items():
        for change in changes:
            pairs = _pairs(records, method, change)
            if not pairs:
                continue
            logs = [(math.log(a["loss"]), math.log(b["loss"])) for a, b in pairs]
            found = paired_difference(*zip(*logs, strict=True))
            low, high = (100 * math.expm1(each) for each in found.bounds(6))
            gains = [a["score"] - b["score"] for a, b in pairs if a["metric"] == "accuracy"]
            named = ", ".join(f"{name} {_shown(name, value)}" for name, value in change.items())
            better = sum(a < b for a, b in logs)
            lines.append(
                f"| `{method}` | {named} | {100 * math.expm1(found.value):+.1f} ({low:+.1f} to "
                f"{high:+.1f}) | {f'{statistics.mean(gains):+.1f}' if gains else ''} | {better} | "
                f"{len(pairs)} |"
            )
    return "\n".join(lines)


def is_losing(records: Sequence[Mapping[str, Any]], method: str, change: Mapping[str, Any]) -> bool:
    """Whether a change has shown too little beside the method's own settings to be run again."""
    logs = [math.log(a["loss"] / b["loss"]) for a, b in _pairs(records, method, change)]
    if len(logs) < LEAST:
        return False
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    return statistics.mean(logs) > (error if len(logs) < ENOUGH else 0)


def _pairs(
    records: Sequence[Mapping[str, Any]], method: str, change: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return each run with a change, and that with the method's own settings on the same rows."""
    runs = [record for record in records if record["method"] == method]
    own = {_key(record): record for record in runs if not record["change"]}
    return [(r, own[_key(r)]) for r in runs if r["change"] == change and _key(r) in own]


def _key(record: Mapping[str, Any]) -> tuple[str, int]:
    return record["set"], record["seed"]


def _shown(name: str, value: Any) -> str:
    return f"x {value:.2g}" if name == "rate" else str(value)


def main(words: Sequence[str] | None = None) -> None:
    """Run what has not been run, or report what has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--methods", nargs="+", choices=tuple(CHANGES), default=list(CHANGES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args(words)
    if given.what == "report":
        print(report(read_records(RECORDS)))
        return
    torch.set_num_threads(1)
    load = functools.cache(lambda dtype: fw.load("smollm2", dtype=dtype))
    for seed, method, name in itertools.product(given.seeds, given.methods, given.sets):
        for change in ({}, *CHANGES[method]):
            records = read_records(RECORDS)
            begun = [r for r in records if (*_key(r), r["method"]) == (name, seed, method)]
            if change in [r["change"] for r in begun] or is_losing(records, method, change):
                continue
            dtype = begun[0].get("dtype", "float32") if begun else given.dtype
            record = run(load(dtype), SETS[name], method, change, seed, given.data)
            print(json.dumps(record), flush=True)
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
