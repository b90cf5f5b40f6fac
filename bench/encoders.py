"""Few rows and many labels: tuned prompts beside what people would pick instead.

    python bench/encoders.py MODEL --data banking77=TRAIN.jsonl,TEST.jsonl --per-label 10

On the same training rows, in turn: a logistic regression on the frozen states (as they are, with
C 1 and 10, and of mean 0 and variance 1), Foreword's methods, and with ``--setfit PYTHON`` and
``--fastfit PYTHON``, interpreters that have them, SetFit and FastFit. Every finished run is a line
of ``--out``, and the same command goes on after the last of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
from cyclopts import App, CycloptsError, Parameter
from rich.table import Table

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import draw
from foreword.display import console
from foreword.errors import UserError
from foreword.evaluation.records import append_record, read_records
from foreword.reporter import SILENT
from foreword.tasks.labels.probe import LinearProbe, frozen_states

PENALTIES = {"logistic": 1.0, "logistic C 10": 10.0}

NAMES = ("model", "data", "train", "seed", "system", "settings")
KEPT = (*NAMES, "right", "rows", "seconds")

app = App(name="bench", help="Few rows and many labels.", version_flags=[])

Answered = tuple[int, float]
"""Rows that are right, and seconds of training."""


@app.default
def run(
    model: Annotated[str, Parameter(help="a name or a folder")],
    *,
    data: Annotated[list[str], Parameter(help="NAME=TRAIN,TEST: rows of text and label")],
    per_label: Annotated[int | None, Parameter(help="training rows of each label")] = None,
    rows: Annotated[int | None, Parameter(help="training rows in all")] = None,
    test_rows: Annotated[int | None, Parameter(help="else all")] = None,
    seeds: Annotated[int, Parameter(help="draws of training rows, from 0")] = 3,
    methods: Annotated[list[str], Parameter(help="of Foreword")] = ["auto"],  # noqa: B006
    settings: Annotated[Path | None, Parameter(help="JSON: those of fw.tune")] = None,
    setfit: Annotated[Path | None, Parameter(help="a Python that has SetFit")] = None,
    fastfit: Annotated[Path | None, Parameter(help="a Python that has FastFit")] = None,
    threads: Annotated[int, Parameter(help="of the CPU")] = 2,
    out: Annotated[Path, Parameter(help="a line a run is added here")] = Path("out/encoders.jsonl"),
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Run what is not in the file yet, and report."""
    torch.set_num_threads(threads)
    given: dict[str, Any] = {} if settings is None else json.loads(settings.read_text("utf-8"))
    peers = {name: at for name, at in (("setfit", setfit), ("fastfit", fastfit)) if at is not None}
    backbone = Backbone.load(model)
    held: list[Mapping[str, Any]] = []
    for seed in range(seeds):
        for name, train, test in map(_files, data):
            few = as_rows(draw(as_rows(train), rows, per_label, seed, "label"))
            rest = as_rows(draw(as_rows(test), test_rows, None, 0, "label"))
            systems: dict[str, Callable[[], Answered]] = {
                **{
                    name: lambda few=few, rest=rest, c=c: logistic(backbone, few, rest, given, c)
                    for name, c in PENALTIES.items()
                },
                "probe": lambda few=few, rest=rest: probe(backbone, few, rest, given),
                **{
                    method: lambda method=method, few=few, rest=rest, seed=seed: tuned(
                        backbone, method, few, rest, seed, given
                    )
                    for method in methods
                },
            }
            for peer, python in peers.items():
                systems[peer] = lambda peer=peer, python=python, few=few, rest=rest, seed=seed: (
                    peered(python, peer, model, few, rest, seed, threads)
                )
            for system, answer in systems.items():
                own = given if system in methods else {"template": given.get("template")}
                asked = {
                    "model": model,
                    "data": name,
                    "train": len(few),
                    "seed": seed,
                    "system": system,
                    "settings": {} if system in peers else own,
                }
                held.append(_once(out, {**asked, "rows": len(rest), "threads": threads}, answer))
    _report(held, as_json)


def _files(given: str) -> tuple[str, str, str]:
    """Part NAME=TRAIN,TEST; raises UserError for anything else."""
    name, _, files = given.partition("=")
    parts = files.split(",")
    if len(parts) != 2 or not all(parts):
        raise UserError(f"--data {given}: give NAME=TRAIN,TEST")
    return name, parts[0], parts[1]


def _once(out: Path, asked: dict[str, Any], answer: Callable[[], Answered]) -> Mapping[str, Any]:
    """Return the record of a run, which is made where the file has none."""
    same = ("rows", *NAMES)
    for record in read_records(out, KEPT):
        if all(record[name] == asked[name] for name in same):
            return record
    console.say(f"{asked['data']}, {asked['system']}, seed {asked['seed']}")
    right, seconds = answer()
    record = {**asked, "right": right, "seconds": round(seconds, 1)}
    append_record(out, record)
    return record


def logistic(
    backbone: Backbone,
    few: Sequence[Row],
    rest: Sequence[Row],
    given: Mapping[str, Any],
    c: float = 1.0,
) -> Answered:
    """scikit-learn's logistic regression on the states as they are; ``c`` is 1 there, if unsaid."""
    from sklearn.linear_model import LogisticRegression

    began = time.monotonic()
    task = fw.Classify(template=given.get("template")).complete(few, backbone).bind(backbone)
    states = [state[0] for state in frozen_states(task, few)[1]]
    model = LogisticRegression(C=c, max_iter=2000).fit(states, [row.fields["label"] for row in few])
    seconds = time.monotonic() - began
    found = model.predict([state[0] for state in frozen_states(task, rest)[1]])
    return _right(list(found), rest), seconds


def probe(
    backbone: Backbone, few: Sequence[Row], rest: Sequence[Row], given: Mapping[str, Any]
) -> Answered:
    """The probe that stands in the tables of ``eval --baselines``."""
    began = time.monotonic()
    task = fw.Classify(template=given.get("template")).complete(few, backbone).bind(backbone)
    fitted = LinearProbe.fit(task, few)
    seconds = time.monotonic() - began
    return _right([answer["label"] for answer in fitted.predict(rest)], rest), seconds


def tuned(
    backbone: Backbone,
    method: str,
    few: Sequence[Row],
    rest: Sequence[Row],
    seed: int,
    given: Mapping[str, Any],
) -> Answered:
    """A method of Foreword; a tenth of the training rows is held back to choose the step by."""
    began = time.monotonic()
    prompt = fw.tune(backbone, method=method, train=few, seed=seed, report=SILENT, **given)
    seconds = time.monotonic() - began
    answers = prompt.bound.predict(rest, prompt.injection)
    return _right([answer["label"] for answer in answers], rest), seconds


def peered(
    python: Path,
    system: str,
    model: str,
    few: Sequence[Row],
    rest: Sequence[Row],
    seed: int,
    threads: int,
) -> Answered:
    """A peer, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "out.json")
        job = {
            "system": system,
            "model": str(Path(model).resolve()),
            "train": [dict(row.fields) for row in few],
            "test": [dict(row.fields) for row in rest],
            "seed": seed,
            "threads": threads,
            "out": str(out),
        }
        script = Path(__file__).with_name("encoders_peers.py")
        ended = subprocess.run(
            [python, script], input=json.dumps(job), text=True, stdout=subprocess.DEVNULL
        )
        if ended.returncode:
            raise UserError(f"{system}: {python} ended with exit status {ended.returncode}")
        made = json.loads(out.read_text())
    return int(made["right"]), float(made["seconds"])


def _right(found: Sequence[Any], rows: Sequence[Row]) -> int:
    pairs = zip(found, rows, strict=True)
    return sum(str(label) == str(row.fields["label"]) for label, row in pairs)


def _report(records: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Show the mean accuracy of each system, that of every seed, and the mean seconds."""
    table = Table("data", "system", "accuracy", "seeds", "seconds", box=None)
    rows = []
    for data, system in dict.fromkeys((r["data"], r["system"]) for r in records):
        own = [r for r in records if (r["data"], r["system"]) == (data, system)]
        scores = [100 * r["right"] / r["rows"] for r in own]
        rows.append(
            {
                "data": data,
                "system": system,
                "accuracy": round(mean(scores), 1),
                "seeds": [round(score, 1) for score in scores],
                "seconds": round(mean(r["seconds"] for r in own), 1),
            }
        )
    if as_json:
        console.emit({"rows": rows, "records": list(records)})
        return
    for row in rows:
        cells = {**row, "seeds": " ".join(f"{score:.1f}" for score in row["seeds"])}
        table.add_row(*map(str, cells.values()))
    console.out().print(table)


if __name__ == "__main__":
    try:
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        sys.exit(f"error: {error}")
