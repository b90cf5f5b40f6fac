"""The papers' own tables, with the models that are at hand.

    python bench/papers.py e2e E2E --methods prefix,soft,lora
    python bench/papers.py superglue --model ROBERTA --data rte=RTE --data boolq=BOOLQ
    python bench/papers.py report

``e2e`` trains on all rows of the E2E challenge (Novikova et al. 2017) and scores the official test
set; a run takes hours. It may be stopped and started again at any time: training goes on at its
checkpoint, writing at the last part of the test set, and a finished run is a line of
``bench/papers.jsonl``. ``superglue`` has the rows of P-tuning v2's table, for whoever has a model
of its size and the data. ``report`` sets the records beside the numbers that are published.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from papers_e2e import E2E, run_e2e
from papers_published import tables
from papers_superglue import TASKS, SuperGlue, run_superglue

from foreword.backbone.backbone import Backbone
from foreword.display import console
from foreword.errors import UserError, nearest
from foreword.evaluation.records import append_record, read_records
from foreword.methods.registry import kinds

RECORDS = Path(__file__).with_name("papers.jsonl")
WORK = Path("out/papers")
NAMES = ("table", "model", "method", "settings")

app = App(name="bench", help="The papers' own tables.", version_flags=[])

Methods = Annotated[str, Parameter(help="in turn, joined by commas")]
Model = Annotated[str, Parameter(help="a name, a folder or a .gguf file, as in foreword train")]
Work = Annotated[Path, Parameter(help="folder of prompts, checkpoints and answers")]
Out = Annotated[Path, Parameter(help="the file of records")]
Dtype = Annotated[str, Parameter(help="of the weights and of all that is computed but the prompt")]
Memory = Annotated[str | None, Parameter(help="as in foreword train, such as 4GB")]


@app.command
def e2e(
    data: Path,
    /,
    *,
    model: Model = "smollm2",
    methods: Methods = "prefix,soft,lora",
    epochs: Annotated[int, Parameter(help="passes over the training rows; the papers have 5")] = 5,
    batch: Annotated[int, Parameter(help="rows a step; the papers have 10 and 8")] = 10,
    beams: Annotated[int, Parameter(help="of beam search; the papers have 5 and 10")] = 5,
    rows: Annotated[int | None, Parameter(help="the first N training rows, for a trial")] = None,
    dtype: Dtype = "float32",
    memory: Memory = None,
    work: Work = WORK,
    out: Out = RECORDS,
) -> None:
    """Tune on the E2E data set, and score the official test set by the official BLEU."""
    setting = E2E(data, epochs, batch, beams, rows, dtype, memory)
    setting.check()
    run = partial(run_e2e, setting, work)
    _in_turn("e2e", model, methods, setting.plain(), out, run, dtype)


@app.command
def superglue(
    *,
    data: Annotated[list[str], Parameter(help=f"TASK=FOLDER with jsonl files: {', '.join(TASKS)}")],
    model: Model,
    methods: Methods = "prefix+head,soft",
    epochs: Annotated[int, Parameter(help="passes over the training rows")] = 20,
    batch: Annotated[int, Parameter(help="rows a step")] = 32,
    length: Annotated[int, Parameter(help="virtual tokens")] = 20,
    memory: Memory = None,
    work: Work = WORK,
    out: Out = RECORDS,
) -> None:
    """Tune on tasks of SuperGLUE, and score their validation rows, as P-tuning v2 does."""
    for each in data:
        task, _, folder = each.partition("=")
        if task not in TASKS or not folder:
            raise UserError(f"--data {each}: give TASK=FOLDER; {nearest(task, TASKS)}")
        setting = SuperGlue(task, Path(folder), epochs, batch, length, memory)
        run = partial(run_superglue, setting, work)
        _in_turn(task, model, methods, setting.plain(), out, run)


@app.command
def report(*, out: Out = RECORDS) -> None:
    """Print the records beside the published numbers, as tables."""
    for line in tables(read_records(out, NAMES)):
        console.line(line)


Run = Callable[[Backbone, str], dict[str, Any]]


def _in_turn(
    table: str,
    model: str,
    methods: str,
    settings: dict[str, Any],
    out: Path,
    run: Run,
    dtype: str = "float32",
) -> None:
    """Run the methods that have no record of these settings yet, and record each as it ends."""
    asked = [name.strip() for name in methods.split(",")]
    for name in asked:
        kinds(name)  # refuses one that is unknown before anything is run
    records = read_records(out, NAMES)
    name = Path(model).stem if Path(model).exists() else model
    backbone: Backbone | None = None
    for method in asked:
        about = {"table": table, "model": name, "method": method, "settings": settings}
        if any({key: each[key] for key in about} == about for each in records):
            console.say(f"{table}, {method}: is recorded in {out}")
            continue
        backbone = backbone or Backbone.load(model, dtype=dtype)
        append_record(out, {**about, **run(backbone, method)})
    for line in tables(read_records(out, NAMES)):
        console.line(line)


if __name__ == "__main__":
    try:
        app(exit_on_error=False)
    except (UserError, CycloptsError) as error:
        sys.exit(f"bench: {error}")
