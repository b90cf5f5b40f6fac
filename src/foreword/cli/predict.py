"""The command that answers texts or rows."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import (
    USUALLY,
    Force,
    Json,
    Loaded,
    Loading,
    MinProbability,
    Model,
    PromptFile,
    on_backbone,
)
from foreword.cli.completion import File
from foreword.cli.imports import large_imports
from foreword.cli.reading import USUAL, Read
from foreword.cli.terminal import CommandTerminal
from foreword.cli.words import json_schema_of
from foreword.data.bad_rows import BadRows, OnBad, refuse
from foreword.data.folder import TEST
from foreword.data.formats import is_data_name
from foreword.data.row import Row
from foreword.data.write import check_apart, check_writable
from foreword.display import console, tables
from foreword.errors import UserError
from foreword.grammar import counted

if TYPE_CHECKING:
    from foreword.evaluation.answer_columns import Prediction
    from foreword.evaluation.answer_file import Answered
    from foreword.prompt.answerer import Answerer
    from foreword.tasks.base import Bound


def predict(
    prompt: PromptFile,
    texts: Annotated[list[str] | None, Parameter(help="texts to answer")] = None,
    /,
    *,
    data: Annotated[
        File | None, Parameter(help="rows to answer, instead of texts; - is standard input")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="the rows with their answers: a .csv, .tsv or .jsonl file")
    ] = None,
    min_probability: MinProbability = None,
    json_schema: Annotated[
        File | None, Parameter(help="a file with the JSON schema that answers obey")
    ] = None,
    interactive: Annotated[
        bool, Parameter(help="answer line after line of what is typed, or comes in a pipe")
    ] = False,
    endpoint: Annotated[
        str | None,
        Parameter(help="a server that has the prompt under the name of its file, and its model"),
    ] = None,
    reading: Read = USUAL,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Answer texts, or the rows of a file.

    Rows keep all their columns. With --skip-bad, rows that cannot be answered stay, with an empty
    answer; rows that cannot be read are left out. With --out, answers are written as they come, to
    OUT.partial; after a stop the same command goes on.
    """
    if interactive:
        if texts or data is not None or out is not None or as_json:
            raise UserError("--interactive reads lines; leave out texts, --data, --out and --json")
        opened = _opened(prompt, json_schema, model, loading, endpoint, force=force)
        _converse(opened, min_probability)
        return
    if (data is None) == (not texts):
        raise UserError("give texts to answer, or --data F, or --interactive")
    for text in texts or ():
        if is_data_name(text) and os.path.isfile(text):
            raise UserError(
                f"{text}: is a file of rows, not a text; give it with --data {quote(text)}"
            )
    with large_imports():
        from foreword.evaluation.answer_file import answer_file
        from foreword.prompt.abstain import least_of
        from foreword.prompt.predict import rows_of

    if out is not None:
        check_writable(out)
        check_apart(out, data)
    unread = BadRows()
    on_bad: OnBad = unread if reading.skip_bad else refuse
    rows: Sequence[Row] = ()
    again = out is not None and data is not None and not _comes_once(data)  # read anew, not held
    if data is not None:
        read: Iterable[Row] = reading.iterate(data, TEST, on_bad, CommandTerminal())
        if not again:
            read = rows = list(read)
        if out is not None:
            check_writable(out, (row.fields for row in read))
        deque(read, maxlen=0)  # to its end, for a row that cannot be read
    tuned = _opened(prompt, json_schema, model, loading, endpoint, force=force)
    least = least_of(tuned, min_probability)
    if texts:
        rows = rows_of(texts, tuned.bound)
    unread.check(rows or again)
    bad = BadRows() if reading.skip_bad else None
    lines: list[dict[str, Any]] = []
    found: list[Prediction | None] = []
    if out is None:
        answered, lines, found = _answered(tuned, rows, reading.named, least, bad)
    else:
        later: OnBad = BadRows() if reading.skip_bad else refuse  # of rows that are told already
        answered = answer_file(
            tuned,
            lambda: reading.iterate(str(data), TEST, later) if again else rows,
            out,
            settings=_settings(prompt, tuned.bound, loading, endpoint, skip_bad=reading.skip_bad),
            like=data,
            columns=reading.named,
            least=least,
            bad=bad,
            hear=lines.append if as_json else None,
            report=CommandTerminal(),
        )
    unanswered = BadRows() if bad is None else bad
    for line in (*unread.lines(), *unanswered.lines("left without an answer")):
        console.say(line)
    for name, other in answered.renamed.items():
        console.say(f"column '{name}' is there already; the new one is '{other}'")
    if answered.cut:
        console.say(f"{answered.cut} of {answered.rows} rows were too long and were cut")
    if least is not None:
        given, limit = answered.rows - answered.unanswered, f"{round(least, 4)}"
        console.say(f"{answered.blank} of {given} answers are below {limit} and left blank")
    if as_json:
        about = {"rows": answered.rows, "cut": answered.cut, "blank": answered.blank, "out": out}
        skipped = [*unread.reasons, *unanswered.reasons]
        console.emit({**about, "skipped": skipped, "predictions": lines})
    elif out is not None:
        console.say(f"{out}: {counted(answered.rows, 'row')}")
    else:
        _show(found, tuned.bound, least)


def _comes_once(data: str) -> bool:
    """Tell standard input and named pipes from what can be read again."""
    return data == "-" or (os.path.exists(data) and Path(data).is_fifo())


def _answered(
    tuned: Answerer,
    rows: Sequence[Row],
    columns: Mapping[str, str],
    least: float | None,
    bad: BadRows | None,
) -> tuple[Answered, list[dict[str, Any]], list[Prediction | None]]:
    """Answer rows in memory; return what came of them, as lines and as answers."""
    from foreword.evaluation.answer_columns import answer_rows, with_answers
    from foreword.evaluation.answer_file import Answered
    from foreword.prompt.abstain import is_unsure

    on_bad = refuse if bad is None else bad
    with CommandTerminal().bar("predicting", len(rows)) as progress:
        found = answer_rows(tuned, rows, columns=columns, on_bad=on_bad, progress=progress)
    answers = [answer for answer in found if answer is not None]
    if bad is not None:
        bad.check(answers)
    lines, called = with_answers(rows, found, tuned.bound, least=least)
    cut = sum(bool(answer["cut"]) for answer in answers)
    blank = sum(is_unsure(tuned.bound, answer, least) for answer in answers)
    return Answered(len(rows), cut, blank, len(rows) - len(answers), called), lines, found


def _settings(
    prompt: str | Path, bound: Bound, loading: Loading, endpoint: str | None, *, skip_bad: bool
) -> dict[str, Any]:
    """Return what answers depend on, besides the rows, so that other ones are not continued."""
    schema = getattr(getattr(bound.task, "decoding", None), "json_schema", None)
    about = {} if schema is None else {"json_schema": schema}
    opened = {name: getattr(loading, name) for name in ("quantize", "architecture", "pooling")}
    about |= {name: value for name, value in opened.items() if value not in (None, "auto")}
    return {
        **about,
        "prompt": hashlib.sha256(Path(prompt).read_bytes()).hexdigest(),
        "model": endpoint or bound.backbone.fingerprint,
        "dtype": str(bound.backbone.dtype),
        "skip_bad": skip_bad,
    }


def _opened(
    prompt: Path,
    schema: str | None,
    model: str | None,
    loading: Loading,
    endpoint: str | None,
    *,
    force: bool,
) -> Answerer:
    """Open a prompt on its model, or at a server, to answer by a JSON schema if one is given."""
    from foreword.compose.ensemble import load_prompt

    if endpoint is not None:
        if schema is not None:
            raise UserError(
                "--endpoint: the server answers as the prompt was tuned; leave out --json-schema"
            )
        return _at_server(prompt, endpoint, model)
    tuned = on_backbone(load_prompt(prompt), prompt, model, loading, force=force)
    return tuned if schema is None else tuned.decoding(json_schema=json_schema_of(schema))


def _at_server(prompt: Path, endpoint: str, model: str | None) -> Answerer:
    """Open a prompt that a server answers; the key is that of FOREWORD_API_KEY."""
    from foreword.prompt.endpoint import ServedPrompt
    from foreword.prompt.prompt import Prompt

    tuned, name = Prompt.load(prompt), prompt.name.removesuffix(".safetensors")
    key = os.environ.get("FOREWORD_API_KEY")
    return ServedPrompt.of_prompt(tuned, endpoint, name, model=model, key=key)


def _converse(tuned: Answerer, min_probability: str | None) -> None:
    """Answer line after line."""
    from foreword.cli.chat import interactive
    from foreword.prompt.abstain import least_of

    least = least_of(tuned, min_probability)
    interactive(tuned, least, lambda answer: _line(answer, tuned.bound, least))


def _show(found: Sequence[Prediction | None], bound: Bound, least: float | None) -> None:
    """Print one line for each answer."""
    for answer in found:
        console.line("-" if answer is None else _line(answer, bound, least))


def _line(answer: Prediction, bound: Bound, least: float | None) -> str:
    """Return an answer as a line."""
    from foreword.prompt.abstain import is_unsure

    line = tables.answer_line(answer[bound.answer], answer.get("probabilities", {}))
    return f"-  (unsure: {line})" if is_unsure(bound, answer, least) else line
