"""The comparison: one table of methods on the same rows, filled run by run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from foreword.cli.advice import with_flags
from foreword.cli.common import Json
from foreword.cli.completion import File
from foreword.cli.flags import CONTINUAL, parameters, without
from foreword.cli.panels import DATA, FURTHER, OUTPUT, TRAINING
from foreword.cli.reading import Reading
from foreword.cli.sweep import grid, with_values
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Whole
from foreword.data.folder import DEV, TEST
from foreword.data.sample import first, hold_out
from foreword.display import comparison, console
from foreword.errors import UserError
from foreword.evaluation.records import Record, read_records, summarise
from foreword.grammar import counted
from foreword.tasks.registry import name_of

OTHERS = ("train", "method", "preset", "out", "report_to", "shard", *CONTINUAL)
"""Settings that a comparison has not, or names otherwise."""

OF_MODEL = ("dtype", "device", "quantize", "architecture", "pooling")
"""Settings of how the model is opened."""

Shared = parameters("Shared", map(with_values, without(OTHERS)))
"""The settings that all methods share, or those that have them; most may have several values."""

NO_FLAGS = Shared()


def compare(
    *,
    methods: Annotated[
        str,
        Parameter(
            help="names with commas between: zero-shot,demonstrations,probe,prefix+lora",
            group="Method",
        ),
    ],
    data: Annotated[File, Parameter(help="rows to train on", group=DATA)],
    flags: Annotated[Shared, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    test_rows: Annotated[
        Whole | None,
        Parameter(
            help="use the first N test rows after shuffling with the seed", group=(DATA, FURTHER)
        ),
    ] = None,
    seeds: Annotated[
        Whole, Parameter(help="runs of each method, with seeds from --seed up", group=TRAINING)
    ] = 1,
    out: Annotated[
        Path,
        Parameter(help="JSONL file of the runs; what it holds is not done again", group=OUTPUT),
    ] = Path("out/compare.jsonl"),
    table: Annotated[
        Literal["csv", "latex", "markdown"] | None,
        Parameter(help="print the table as such text", group=OUTPUT),
    ] = None,
    plot: Annotated[
        Path | None,
        Parameter(help="draw scores against sizes: a .png, .svg or .pdf file", group=OUTPUT),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tune and score several methods on the same rows, and show them in one table.

    A setting goes to every method that has it. One with several values (--length 1,5,20) is a
    sweep: all combinations are run, and the table shows what differs. A method that cannot run says
    why and loses no other; the same command goes on where it was stopped.
    """
    from foreword.cli.settings import compared
    from foreword.display.pictures import check_picture, draw_front, front
    from foreword.evaluation.compare import compare_runs
    from foreword.evaluation.runs import Data, Model, Run, ZeroShot, distinct
    from foreword.tasks.fields import text_fields_of

    if table is not None and as_json:
        raise UserError("--table and --json both say what is printed; give one")
    if plot is not None:
        check_picture(plot)
    names = [name.strip() for name in methods.split(",")]
    swept = [compared(given, names) for given in grid(flags)]
    for each in swept:
        each.training.check()
    made = swept[0]
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give 1 or more")
    read_records(out)  # what is wrong with it is said before the first run
    seed = made.training.seed
    reading, fields = Reading.of(made.plain), text_fields_of(made.task)
    check = made.task.check_answer
    train = reading.rows(data, fields=fields, check=check)
    if made.plain["test"] is None:
        by = made.task.class_field
        labelled = by is not None and all(by in row.fields for row in train)
        train, test = hold_out(train, 0.2, seed, by=by if labelled else None)
        console.say(
            f"no test rows given: {len(test)} of the training rows are held out for scoring"
        )
    else:
        test = reading.rows(made.plain["test"], TEST, fields=fields, check=check)
    test = test if test_rows is None else first(test, test_rows, seed)
    dev = None
    if made.plain["dev"] is not None:
        n = made.plain["dev_rows"]
        dev = reading.rows(made.plain["dev"], DEV, fields=fields, check=check, n=n, seed=seed)
    rows = {
        (each.plain["rows"], each.plain["per_label"]): Data(
            train, test, dev, each.plain["rows"], each.plain["per_label"]
        )
        for each in swept
    }
    trained = [len(each.chosen(made.task, seed)) for each in rows.values()]
    runs = [
        Run(
            name,
            each.methods[name],
            replace(each.training, seed=number),
            Model(each.plain["model"], **{name: each.plain[name] for name in OF_MODEL}),
            each.task,
            rows[each.plain["rows"], each.plain["per_label"]],
        )
        for number in range(seed, seed + seeds)
        for name in made.methods
        for each in swept
        if number == seed or not isinstance(each.methods[name], ZeroShot)  # which no seed changes
    ]
    found = summarise(compare_runs(distinct(runs), out, CommandTerminal(), CommandTerminal))
    found = [{n: with_flags(v) if n == "error" else v for n, v in e.items()} for e in found]
    headline = next((each["headline"] for each in found if each["score"] is not None), None)
    if plot is not None and headline is not None:
        draw_front(found, headline, plot)
    if as_json:
        about = {"train": data, "test": made.plain["test"], "dev": made.plain["dev"]}
        task = name_of(made.task)
        best = front(found)
        found = [{**each, "front": each in best} for each in found]
        console.emit(
            {"methods": found, "task": task, "headline": headline, "data": about, "out": out}
        )
    else:
        _print(found, headline, table, len(test), trained)
        if plot is not None:
            console.say(f"{plot}: scores against sizes, with the front of the best by size")
    if all(each["score"] is None for each in found):
        raise UserError("none of the methods could run")


def _print(
    found: list[Record], headline: str | None, table: str | None, tested: int, trained: list[int]
) -> None:
    say = console.line if table is None else console.say  # a table for others stands alone
    if headline is not None:
        counts = " or ".join(map(str, trained))
        train = "training row" if trained == [1] else "training rows"
        say(f"{counts} {train}, {counted(tested, 'test row')}; 95% bootstrap interval over these")
        if any(each["spread"] is not None for each in found):
            say("means over the seeds, with ± their standard deviation; the largest peak")
        if table is None:
            console.out().print(comparison.methods(found, headline))
        else:
            sys.stdout.write(comparison.written(found, headline, table))
    for each in found:
        if "error" in each:
            some = "" if each["score"] is None else " (a part of the seeds)"
            what = ", ".join([each["method"], *(f"{k} {v}" for k, v in each["varied"].items())])
            say(f"{what}{some}: {each['error']}")
