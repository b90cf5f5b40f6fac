"""Chat, summaries and several labels: prompts beside what people do without training, and LoRA.

    python bench/texts.py run smollm2 gemma-3-270m=PATH.gguf --data ../shared/data --sets shop slots
    python bench/texts.py report --page docs/models.md

On the same rows: the untouched model with the template alone, the same with demonstrations in
context (of the shop, also with its manual), and tuned methods. Beside the task's scores stands what
an answer says: the share of the reference's values (numbers, times, prices and names) that it has,
how many of its own values stand neither there nor in the conversation, its words for one of the
reference, and whether it refuses. Each finished run is a line of ``bench/texts.jsonl``, and is not
run again. ``report --page`` writes the table of all of them into a page, between two marks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, CycloptsError, Parameter
from texts_said import what_is_said
from texts_sets import MANUAL, SETS, SHOP, SHOWN, Set

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.sample import first
from foreword.errors import UserError
from foreword.evaluation.evaluate import score
from foreword.evaluation.evaluation import Evaluation
from foreword.evaluation.records import Record, append_record, read_records
from foreword.injection import NOTHING
from foreword.reporter import SILENT
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.training.configure import make_task
from models import write_table

RECORDS = Path(__file__).with_suffix(".jsonl")
MARKS = "<!-- texts -->", "<!-- /texts -->"
NAMES = ("model", "set", "system", "seed", "settings")
KEPT = (*NAMES, "headline", "scores", "said", "rows")

METHODS = ("prefix", "lora")
"""What is tuned, beside the systems of a set."""

app = App(name="bench", help="Prompts that write, or name several labels.", version_flags=[])


@app.command
def run(
    models: Annotated[list[str], Parameter(help="NAME, or NAME=PATH")],
    *,
    data: Annotated[Path, Parameter(help="the folder of data sets")] = Path("../shared/data"),
    sets: Annotated[
        list[str] | None, Parameter(help=f"{', '.join(SETS)}; else all", consume_multiple=True)
    ] = None,
    systems: Annotated[
        list[str] | None, Parameter(help="else all, and prefix and lora", consume_multiple=True)
    ] = None,
    rows: Annotated[int | None, Parameter(help="training rows, where not the set's own")] = None,
    seeds: Annotated[int, Parameter(help="draws of training rows, from 0")] = 1,
    threads: Annotated[int, Parameter(help="of the CPU")] = 1,
    out: Annotated[Path, Parameter(help="a line a run is added here")] = RECORDS,
) -> None:
    """Run what is not in the file yet."""
    torch.set_num_threads(threads)
    for name in sets or ():
        if name not in SETS:
            raise UserError(f"--sets {name}: give some of {', '.join(SETS)}")
    for model in models:
        called, _, path = model.partition("=")
        base = None
        for seed in range(seeds):
            for name in sets or SETS:
                kind = SETS[name] if rows is None else replace(SETS[name], rows=rows)
                for system in systems or (*kind.systems, *METHODS):
                    asked = about(called, name, kind, system, seed)
                    known = read_records(out, KEPT)
                    if any({key: each[key] for key in NAMES} == asked for each in known):
                        continue
                    base = base or fw.load(path or called, report=SILENT)
                    print(f"{called} on {name}, {system}, seed {seed}", file=sys.stderr)
                    append_record(out, {**asked, **perform(base, kind, system, seed, data)})


@app.command
def report(
    *,
    out: Annotated[Path, Parameter(help="the file of runs")] = RECORDS,
    page: Annotated[Path | None, Parameter(help="a page whose table is written anew")] = None,
) -> None:
    """Print the table of all runs, or write it into a page."""
    table = "\n".join(table_of(read_records(out, KEPT)))
    print(table)
    if page is not None:
        write_table(page, table, MARKS)


def about(model: str, name: str, kind: Set, system: str, seed: int) -> dict[str, Any]:
    """Return what tells a run from others; training changes nothing of the untouched model."""
    settings = {"rows": kind.rows, "test_rows": kind.test_rows, **kind.asked}
    if system not in kind.systems:
        settings |= {**kind.training, **kind.own.get(system, {})}
    return {"model": model, "set": name, "system": system, "seed": seed, "settings": settings}


def perform(base: Backbone, kind: Set, system: str, seed: int, data: Path) -> Record:
    """Answer the test rows by one system; return its scores, and what the answers say."""
    every, rest = kind.sides(data)
    rows, test = first(every, kind.rows, seed), first(rest, kind.test_rows, 0)
    began = time.process_time()
    if system in kind.systems:
        found = untouched(base, kind, rows, test, system, seed)
        trained = {}
    else:
        prompt = fw.tune(
            base,
            kind.task,
            system,
            rows,
            seed=seed,
            report=SILENT,
            **{**kind.asked, **kind.training, **kind.own.get(system, {})},
        )
        trained = {"seconds": round(time.process_time() - began, 1)}
        found = fw.evaluate(prompt, test, report=SILENT)
    names = found.intervals
    return {
        "headline": found.headline,
        "scores": {name: [found[name], *names[name]] for name in names},
        "said": what_is_said(found) if kind.task != "multilabel" else None,
        "answers": [each.answer for each in found.rows[:3]],
        "rows": len(test),
        **trained,
    }


def untouched(
    base: Backbone, kind: Set, rows: Sequence[Row], test: Sequence[Row], system: str, seed: int
) -> Evaluation:
    """Score the frozen model, alone or with texts in its context."""
    longest = {"max_length": 2048} if system == MANUAL else {}
    task = make_task(kind.task, {**kind.asked, **longest}).complete(rows, base)
    bound = task.fill_from_rows(base, rows, seed).bind(base)
    before = ""
    if system == SHOWN:
        bound.check(rows, answers=True)
        before = "".join(map(bound.demonstration, choose_demonstrations(bound, rows, None, seed)))
    if system == MANUAL:
        manual = (SHOP / "manual.txt").read_text("utf-8")
        test = [with_manual(row, manual) for row in test]
    return score(bound.without_prompt(), test, NOTHING, before=before, seed=seed)


def with_manual(row: Row, manual: str) -> Row:
    """Return a conversation whose system message ends with a manual."""
    system, *turns = row.fields["messages"]
    told = {**system, "content": f"{system['content']}\n\n{manual}"}
    return Row({**row.fields, "messages": [told, *turns]}, row.where)


# The table ---------------------------------------------------------------------------------------


def table_of(records: Sequence[Record]) -> list[str]:
    """Return the lines of a table: a line a set, model and system, by its first seed."""
    lines = [
        "| set | model | system | score | chrF | values said | stray | words | refused |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted(
        records, key=lambda r: (list(SETS).index(r["set"]), r["settings"]["rows"], r["model"])
    ):
        told = each["said"] or {}
        name = each["headline"]
        cells = [
            each["set"] + _other_rows(each),
            each["model"],
            each["system"] + (f", seed {each['seed']}" if each["seed"] else ""),
            f"{name.replace('_', ' ')} {_shown(each['scores'][name])}",
            _shown(each["scores"].get("chrf")),
            _shown(told.get("values")),
            _short(told.get("stray")),
            _short(told.get("words")),
            _short(told.get("refused")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _other_rows(record: Record) -> str:
    """Say how many rows were trained on, where these are not the set's own."""
    rows = record["settings"]["rows"]
    return "" if rows == SETS[record["set"]].rows else f", {rows} rows"


def _shown(found: Sequence[float] | None) -> str:
    return "" if found is None else "{:.1f} ({:.1f} to {:.1f})".format(*found)


def _short(found: Sequence[float] | None) -> str:
    return "" if found is None else f"{found[0]:.0f}"


if __name__ == "__main__":
    try:
        app(exit_on_error=False)
    except (UserError, CycloptsError) as error:
        sys.exit(f"bench: {error}")
