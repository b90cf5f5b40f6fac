"""The command that scores a prompt on rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import (
    USUALLY,
    Columns,
    Force,
    Json,
    Loaded,
    Model,
    PromptFile,
    on_backbone,
    some_rows,
)
from foreword.cli.completion import File
from foreword.cli.words import columns, parse_windows
from foreword.data.hub import TEST
from foreword.errors import UserError
from foreword.metrics.titles import FURTHER
from foreword.report import console, tables
from foreword.terminal import Terminal


def evaluate(
    prompt: PromptFile,
    *,
    data: Annotated[File, Parameter(help="rows with their answers")],
    baselines: Annotated[
        bool, Parameter(help="score the frozen model without the prompt too")
    ] = False,
    rows: Annotated[int | None, Parameter(help="the first N after shuffling with the seed")] = None,
    windows: Annotated[
        str | None, Parameter(help="4,8,all: the score where so many first tokens are read")
    ] = None,
    columns_: Columns = None,
    seed: Annotated[int, Parameter(help="decides the rows and the intervals")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score a prompt on rows, with intervals, beside the frozen model where that is asked for."""
    from foreword.compose.ensemble import load_prompt
    from foreword.evaluation.evaluate import evaluate as do
    from foreword.evaluation.evaluate import over_windows
    from foreword.prompt.prompt import Prompt

    sizes = None if windows is None else parse_windows(windows)
    if sizes is not None and baselines:
        raise UserError("--windows scores the prompt alone; leave out --baselines")
    chosen = some_rows(data, columns(columns_), rows, seed, TEST)
    result: Mapping[str, Any]
    if sizes is None:
        tuned = on_backbone(load_prompt(prompt), prompt, model, loading, force=force)
        result = do(tuned, chosen, baselines=baselines, seed=seed, report=Terminal())
    else:
        one = on_backbone(Prompt.load(prompt), prompt, model, loading, force=force)
        result = over_windows(one, chosen, sizes, seed=seed, report=Terminal())
    if as_json:
        console.emit(result)
        return
    console.line(f"{prompt} on {data}: {result['rows']} rows, 95% intervals")
    if sizes is None:
        _print(result)
    else:
        console.out().print(tables.curve(result))


def _print(result: Mapping[str, Any]) -> None:
    screen = console.out()
    if result["cut"]:
        console.line(f"{result['cut']} rows were too long and were cut")
    if result.get("windowed"):
        console.line(f"{result['windowed']} rows were read in windows; the likeliest answer counts")
    screen.print(tables.scores(result, "prompt"))
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
