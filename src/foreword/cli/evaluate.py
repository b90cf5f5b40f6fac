"""The command that scores a prompt on rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import (
    USUALLY,
    Force,
    Json,
    Loaded,
    Model,
    PromptFile,
    on_backbone,
)
from foreword.cli.completion import File
from foreword.cli.panels import OUTPUT
from foreword.cli.reading import USUAL, Read, Reading
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Seed, Whole
from foreword.cli.words import parse_windows
from foreword.data.folder import TEST
from foreword.data.formats import TABLES
from foreword.data.row import Row
from foreword.data.sample import first
from foreword.data.write import check_apart, check_writable, write_rows
from foreword.display import console, tables
from foreword.errors import UserError
from foreword.files import check_place_of_tensors
from foreword.grammar import counted
from foreword.metrics.titles import FURTHER

if TYPE_CHECKING:
    from foreword.tasks.base import Bound


def evaluate(
    prompt: PromptFile,
    *,
    data: Annotated[File, Parameter(help="rows with their answers")],
    baselines: Annotated[
        bool, Parameter(help="score the frozen model without the prompt too")
    ] = False,
    train: Annotated[
        File | None,
        Parameter(help="the rows that it was tuned on: a baseline learns from them as well"),
    ] = None,
    rows: Annotated[
        Whole | None, Parameter(help="the first N after shuffling with the seed")
    ] = None,
    unknown: Annotated[
        File | None, Parameter(help="rows that belong to no label: how well they are told apart")
    ] = None,
    min_probability: Annotated[
        str | None, Parameter(help="what is answered from here on; auto: as kept; fit: by the rows")
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="write the prompt with the probability that is fitted", group=OUTPUT),
    ] = None,
    errors: Annotated[
        Path | None,
        Parameter(help="the rows that are answered wrongly: a .csv, .tsv or .jsonl file"),
    ] = None,
    windows: Annotated[
        str | None, Parameter(help="4,8,all: the score where so many first tokens are read")
    ] = None,
    reading: Read = USUAL,
    seed: Annotated[Seed, Parameter(help="decides the rows and the intervals")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score a prompt on rows, with intervals, beside the frozen model where that is asked for."""
    from foreword.compose.ensemble import load_prompt
    from foreword.evaluation.answer_columns import columns_of_errors, wrong_rows
    from foreword.evaluation.evaluate import evaluate as do
    from foreword.evaluation.evaluate import over_windows
    from foreword.prompt.abstain import check_one_label
    from foreword.prompt.familiar import FEWEST, with_states
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.fields import text_fields_of

    sizes = None if windows is None else parse_windows(windows)
    if out is not None:
        check_place_of_tensors(out)
        if min_probability not in (None, "fit"):
            raise UserError(
                "--out keeps the probability that is fitted; leave out --min-probability"
            )
        min_probability = "fit"
    others = {
        "--out": out,
        "--baselines": baselines,
        "--train": train,
        "--errors": errors,
        "--unknown": unknown,
        "--min-probability": min_probability,
    }
    for name, given in others.items():
        if sizes is not None and given not in (None, False):
            raise UserError(f"--windows scores the prompt alone; leave out {name}")
    if errors is not None:
        check_writable(errors)
        check_apart(errors, data, train, unknown)
    loaded = load_prompt(prompt)
    n = None if reading.skip_bad else rows
    chosen = reading.rows(data, TEST, fields=text_fields_of(loaded.task), n=n, seed=seed)
    if errors is not None:
        check_writable(errors, (row.fields for row in chosen))
    result: Mapping[str, Any]
    if sizes is None:
        tuned = on_backbone(loaded, prompt, model, loading, force=force)
        chosen = _usable(reading, chosen, tuned.bound, rows, seed)
        learned = None
        if train is not None:
            learned = reading.rows(train, fields=text_fields_of(loaded.task))
            learned = reading.usable(learned, tuned.bound)
        strangers = None
        if unknown is not None:
            strangers = reading.rows(
                unknown,
                TEST,
                check=lambda row: tuned.bound.check([row], answers=False),
                targets=False,
            )
        if out is not None and not isinstance(tuned, Prompt):
            raise UserError(f"{prompt}: an ensemble keeps no probability; leave out --out")
        if out is not None:
            check_one_label(tuned.bound, "out")
        result = do(
            tuned,
            chosen,
            baselines=baselines,
            train=learned,
            unknown=strangers,
            min_probability=min_probability,
            seed=seed,
            report=CommandTerminal(),
        )
        if out is not None and isinstance(tuned, Prompt):
            kept = tuned.with_min_probability(result["abstaining"]["min_probability"])
            (with_states(kept, chosen) if len(chosen) >= FEWEST else kept).save(out)
        if errors is not None:
            table = errors.suffix.lower() in TABLES
            wrong = wrong_rows(result, tuned.bound, as_table=table)
            added = list(columns_of_errors(chosen).values())[:2]
            write_rows(errors, wrong, like=data, columns=[*chosen[0].fields, *added])
            of = f"{len(wrong)} of {counted(result['rows'], 'row')}"
            said = f"{errors}: {of}, with {' and '.join(added)}"
            result = {**result, "errors": {"file": str(errors), "rows": len(wrong)}}
    else:
        one = on_backbone(Prompt.load(prompt), prompt, model, loading, force=force)
        chosen = _usable(reading, chosen, one.bound, rows, seed)
        curve = over_windows(one, chosen, sizes, seed=seed, report=CommandTerminal())
        result = curve.to_dict()
    if as_json:
        console.emit(result)
        return
    console.line(f"{prompt} on {data}: {counted(result['rows'], 'row')}, 95% intervals")
    if sizes is None:
        _print(result)
        if errors is not None:
            console.line(said)
        if out is not None:
            console.line(f"{out}: the prompt with this probability, for --min-probability auto")
    else:
        console.out().print(tables.curve(result))


def _usable(reading: Reading, rows: list[Row], bound: Bound, n: int | None, seed: int) -> list[Row]:
    """Leave out rows that a prompt cannot be scored on, and take the first ``n`` of the others."""
    if not reading.skip_bad:
        return rows
    kept = reading.usable(rows, bound)
    return kept if n is None else first(kept, n, seed)


def _print(result: Mapping[str, Any]) -> None:
    screen = console.out()
    if result["cut"]:
        console.line(f"{result['cut']} rows were too long and were cut")
    if result.get("windowed"):
        console.line(f"{result['windowed']} rows were read in windows; the likeliest answer counts")
    screen.print(tables.scores(result, "prompt"))
    console.say_leads(result)
    if "abstaining" in result:
        screen.print()
        screen.print(tables.abstaining(result["abstaining"]))
    console.warn_of_leaks(result)
    if FURTHER.keys() & result.keys():
        screen.print()
        screen.print(tables.scores(result, "prompt", FURTHER))
    if "per_class" in result:
        screen.print()
        screen.print(tables.per_class(result))
    if "confusion" in result:
        screen.print()
        screen.print(tables.confusion(result))
    for name, signature in result.get("signatures", {}).items():
        console.line(f"{name}: {signature}")
