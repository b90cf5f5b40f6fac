"""The comparison: one table of methods on the same rows, filled run by run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import Json, some_rows
from foreword.cli.flags import CONTINUAL, parameters, without
from foreword.cli.words import columns, with_flags
from foreword.data.hub import DEV, TEST
from foreword.data.read import read_rows
from foreword.data.sample import first, hold_out
from foreword.errors import UserError
from foreword.evaluation.records import Record, read_records, summarise
from foreword.report import comparison, console
from foreword.tasks.registry import name_of
from foreword.training.terminal import Terminal

Shared = parameters(
    "Shared", without(("train", "method", "preset", "out", "report_to", "shard", *CONTINUAL))
)
"""The settings that all methods share, or those that have them."""

NO_FLAGS = Shared()


def compare(
    *,
    methods: Annotated[
        str, Parameter(help="names with commas between: zero-shot,demonstrations,soft,prefix+lora")
    ],
    data: Annotated[str, Parameter(help="rows to train on")],
    flags: Annotated[Shared, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    test_rows: Annotated[
        int | None, Parameter(help="use the first N test rows after shuffling with the seed")
    ] = None,
    seeds: Annotated[int, Parameter(help="runs of each method, with seeds from --seed up")] = 1,
    out: Annotated[
        Path, Parameter(help="JSONL file of the runs; what it holds is not done again")
    ] = Path("out/compare.jsonl"),
    as_json: Json = False,
) -> None:
    """Tune and score several methods on the same rows, and show them in one table.

    A setting goes to every method that has it. A method that cannot run says why and loses no
    other; the same command goes on where it was stopped.
    """
    from foreword.cli.settings import compared
    from foreword.evaluation.compare import compare as do
    from foreword.evaluation.runs import Data, Model, Run, ZeroShot

    made = compared(flags, [name.strip() for name in methods.split(",")])
    made.training.check()
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give 1 or more")
    read_records(out)  # what is wrong with it is said before the first run
    seed = made.training.seed
    named = columns(made.plain["columns"])
    train = read_rows(data, columns=named)
    if made.plain["test"] is None:
        by = made.task.label_field
        labelled = by is not None and all(by in row.fields for row in train)
        train, test = hold_out(train, 0.2, seed, by=by if labelled else None)
        console.say(
            f"no test rows given: {len(test)} of the training rows are held out for scoring"
        )
    else:
        test = read_rows(made.plain["test"], columns=named, split=TEST)
    test = test if test_rows is None else first(test, test_rows, seed)
    dev = None
    if made.plain["dev"] is not None:
        dev = some_rows(made.plain["dev"], named, made.plain["dev_rows"], seed, DEV)
    given = Data(train, test, dev, made.plain["rows"], made.plain["per_label"])
    trained = len(given.chosen(made.task, seed))
    model = Model(*(made.plain[name] for name in ("model", "dtype", "device", "quantize")))
    runs = [
        Run(name, method, replace(made.training, seed=number), model, made.task, given)
        for number in range(seed, seed + seeds)
        for name, method in made.methods.items()
        if number == seed or not isinstance(method, ZeroShot)  # which no seed changes
    ]
    found = summarise(do(runs, out, Terminal()))
    found = [{n: with_flags(v) if n == "error" else v for n, v in e.items()} for e in found]
    if as_json:
        about = {"train": data, "test": made.plain["test"], "dev": made.plain["dev"]}
        task = name_of(made.task)
        headline = next((r["headline"] for r in found if r["score"] is not None), None)
        console.emit(
            {"methods": found, "task": task, "headline": headline, "data": about, "out": out}
        )
    else:
        _print(found, len(test), trained)
    if all(each["score"] is None for each in found):
        raise UserError("none of the methods could run")


def _print(found: list[Record], tested: int, trained: int) -> None:
    headline = next((each["headline"] for each in found if each["score"] is not None), None)
    if headline is not None:
        several = any(each["spread"] is not None for each in found)
        console.line(
            f"{trained} training rows, {tested} test rows; 95% bootstrap interval over these"
        )
        if several:
            console.line("means over the seeds, with ± their standard deviation; the largest peak")
        console.out().print(comparison.methods(found, headline))
    for each in found:
        if "error" in each:
            some = "" if each["score"] is None else " (a part of the seeds)"
            console.line(f"{each['method']}{some}: {each['error']}")
