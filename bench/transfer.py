"""Transfer: a few-shot task from another task's prompt, beside the start that is usual.

    python bench/transfer.py DATA --seeds 3

For each pair a soft prompt is tuned on the source task; then the target task is tuned on a few
rows of each label, once from that prompt (SPoT, Vu et al. 2022, arXiv:2110.07904) and once from
the usual start, on the same rows, and scored on dev rows at every epoch. DATA is a folder with a
folder for each task, of ``train.jsonl`` and ``dev.jsonl``. Each finished run is a line of
``--out``, and the same command goes on after the last of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first, per_class
from foreword.display import console
from foreword.errors import UserError
from foreword.evaluation.records import Record, append_record, read_records
from foreword.methods.soft import Soft
from foreword.reporter import Reporter, Reporters
from foreword.tasks.classify import Classify
from foreword.terminal import Terminal
from foreword.training.settings import Training
from foreword.training.tune import tune

PAIRS = (("banking77", "ag_news"), ("ag_news", "sst2"), ("sst2", "sms_spam"))
TASKS = {
    "banking77": Classify("Message: {text}\nIntent:", max_length=128),
    "ag_news": Classify("News: {text}\nTopic:", max_length=128),
    "sst2": Classify("Review: {text}\nSentiment:", max_length=128),
    "sms_spam": Classify("Message: {text}\nKind:", max_length=128),
}
STARTS = ("usual", "transferred")
NAMES = ("source", "target", "start", "seed", "curve", "shots", "epochs")

app = App(name="bench", help="Few-shot curves from two starts.", version_flags=[])


class Curve(Reporter):
    """Keeps the dev scores of a run, by step."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def score(self, number: int, metric: str, value: float) -> None:
        """Keep the score."""
        self.points.append((number, round(value, 2)))


@dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    backbone: Backbone
    data: Path
    shots: int
    epochs: int
    dev_rows: int
    source_rows: int
    prompts: Path

    def rows(self, task: str, part: str) -> list[Row]:
        """Return a task's rows."""
        return as_rows(self.data / task / f"{part}.jsonl")

    def source(self, task: str) -> Path:
        """Return the source task's prompt, tuned where it is not there yet."""
        out = self.prompts / f"{task}.safetensors"
        if not out.exists():
            tune(
                self.backbone,
                TASKS[task],
                Soft(),
                first(self.rows(task, "train"), self.source_rows, 0),
                training=Training(epochs=3),
                out=out,
                resume=True,
                report=Terminal(f"source {task}"),
            )
        return out

    def curve(self, source: str, target: str, start: str, seed: int) -> list[tuple[int, float]]:
        """Tune the target task on a few rows, and return its dev scores by step."""
        begin = "text" if start == "usual" else str(self.source(source))
        kept = Curve()
        tune(
            self.backbone,
            TASKS[target],
            Soft(start=begin),
            per_class(self.rows(target, "train"), self.shots, seed, "label"),
            first(self.rows(target, "dev"), self.dev_rows, 0),
            training=Training(epochs=self.epochs, seed=seed),
            report=Reporters([kept, Terminal(f"{target}, {start}, seed {seed}")]),
        )
        return kept.points


@app.default
def run(
    data: Path,
    /,
    *,
    seeds: Annotated[int, Parameter(help="runs of each start, with seeds from 0 up")] = 3,
    shots: Annotated[int, Parameter(help="training rows of each label")] = 16,
    epochs: Annotated[int, Parameter(help="passes over them")] = 8,
    dev_rows: Annotated[int, Parameter(help="rows that every epoch is scored on")] = 200,
    source_rows: Annotated[int, Parameter(help="training rows of a source task")] = 400,
    model: Annotated[str, Parameter(help="as in foreword train")] = "smollm2",
    out: Annotated[Path, Parameter(help="JSONL file of the runs")] = Path("out/transfer.jsonl"),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Tune each pair from both starts, and print the curves."""
    records = [r for r in read_records(out, NAMES) if (r["shots"], r["epochs"]) == (shots, epochs)]
    done = {(r["source"], r["target"], r["start"], r["seed"]) for r in records}
    backbone = Backbone.load(model)
    prompts = out.with_suffix(".prompts")
    setting = Setting(backbone, data, shots, epochs, dev_rows, source_rows, prompts)
    for seed in range(seeds):
        for source, target in PAIRS:
            for start in STARTS:
                if (source, target, start, seed) in done:
                    continue
                points = setting.curve(source, target, start, seed)
                made = (source, target, start, seed, points, shots, epochs)
                records.append(dict(zip(NAMES, made, strict=True)))
                append_record(out, records[-1])
    if as_json:
        console.emit({"runs": records})
        return
    for source, target in PAIRS:
        for line in table(source, target, records):
            console.line(line)
        console.line("")


def table(source: str, target: str, records: Sequence[Record]) -> list[str]:
    """Lay out a pair's two curves as the mean over the seeds and their standard deviation."""
    own = [r for r in records if (r["source"], r["target"]) == (source, target)]
    if not own:
        return []
    steps = [step for step, _ in own[0]["curve"]]
    lines = [
        f"| {source} to {target}, step | {' | '.join(map(str, steps))} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for start in STARTS:
        curves = [[score for _, score in r["curve"]] for r in own if r["start"] == start]
        cells = [_cell([curve[n] for curve in curves]) for n in range(len(steps))]
        lines.append(f"| {start} | {' | '.join(cells)} |")
    return lines


def _cell(scores: Sequence[float]) -> str:
    spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}"


if __name__ == "__main__":
    try:
        app(exit_on_error=False)
    except (UserError, CycloptsError) as error:
        sys.exit(f"bench: {error}")
