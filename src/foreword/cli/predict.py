"""The command that answers texts or rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
)
from foreword.cli.completion import File
from foreword.cli.words import columns
from foreword.data.hub import TEST
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.files import write_jsonl
from foreword.report import console, tables
from foreword.terminal import Terminal


def predict(
    prompt: PromptFile,
    texts: Annotated[list[str] | None, Parameter(help="texts to answer")] = None,
    /,
    *,
    data: Annotated[File | None, Parameter(help="rows to answer, instead of texts")] = None,
    out: Annotated[Path | None, Parameter(help="JSONL file to write, one object a row")] = None,
    columns_: Columns = None,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Answer texts, or the rows of a file."""
    if (data is None) == (not texts):
        raise UserError("give texts to answer, or --data F")
    from foreword.compose.ensemble import load_prompt
    from foreword.prompt.predict import rows_of

    tuned = on_backbone(load_prompt(prompt), prompt, model, loading, force=force)
    bound = tuned.bound
    if data is not None:
        given = as_rows(data, columns=columns(columns_), split=TEST, targets=False)
    else:
        given = rows_of(texts or (), bound)
    with Terminal().bar("predicting", len(given)) as progress:
        found = tuned.answers(given, progress=progress)
    cut = sum(bool(answer["cut"]) for answer in found)
    if cut:
        console.say(f"{cut} of {len(found)} rows were too long and were cut")
    lines = [
        {**{name: row.fields[name] for name in bound.fields}, **_rounded(answer)}
        for row, answer in zip(given, found, strict=True)
    ]
    if out is not None:
        write_jsonl(out, lines)
    if as_json:
        console.emit({"rows": len(lines), "cut": cut, "out": out, "predictions": lines})
        return
    if out is not None:
        console.say(f"{out}: {len(lines)} rows")
        return
    for answer in found:
        value = answer[bound.answer]
        console.line(tables.answer_line(value, answer.get("probabilities", {})))


def _rounded(value: Any) -> Any:
    """Round numbers to six decimals, those in lists and objects too; leave out ``cut``."""
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items() if key != "cut"}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value
