"""The command that answers texts or rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from foreword.cli.reading import USUAL, Read
from foreword.cli.terminal import CommandTerminal
from foreword.data.bad_rows import BadRows, refuse
from foreword.data.folder import TEST
from foreword.data.formats import TABLES
from foreword.data.write import check_writable, write_rows
from foreword.errors import UserError
from foreword.report import console, tables


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
    min_probability: Annotated[
        float | None, Parameter(help="leave answers blank that are less sure than this")
    ] = None,
    reading: Read = USUAL,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Answer texts, or the rows of a file.

    Rows keep all their columns. With --skip-bad, rows that cannot be answered stay, with an empty
    answer; rows that cannot be read are left out.
    """
    if (data is None) == (not texts):
        raise UserError("give texts to answer, or --data F")
    from foreword.compose.ensemble import load_prompt
    from foreword.evaluation.answer_columns import (
        answer_rows,
        check_min_probability,
        is_unsure,
        with_answers,
    )
    from foreword.prompt.predict import rows_of

    if out is not None:
        check_writable(out)
    unread, unanswered = BadRows(), BadRows()
    on_bad = unanswered if reading.skip_bad else refuse
    rows = []
    if data is not None:
        rows = reading.read(
            data, TEST, renamed=False, on_bad=unread if reading.skip_bad else refuse
        )
    if out is not None:
        check_writable(out, (row.fields for row in rows))
    tuned = on_backbone(load_prompt(prompt), prompt, model, loading, force=force)
    bound = tuned.bound
    check_min_probability(bound, min_probability)
    rows = rows_of(texts, bound) if texts else rows
    with CommandTerminal().bar("predicting", len(rows)) as progress:
        found = answer_rows(tuned, rows, columns=reading.named, on_bad=on_bad, progress=progress)
    answers = [answer for answer in found if answer is not None]
    unread.check(rows)
    unanswered.check(answers)
    table = out is not None and out.suffix.lower() in TABLES
    lines, called = with_answers(rows, found, bound, least=min_probability, as_table=table)
    for line in (*unread.lines(), *unanswered.lines("left without an answer")):
        console.say(line)
    for name, other in called.items():
        console.say(f"column '{name}' is there already; the new one is '{other}'")
    cut = sum(bool(answer["cut"]) for answer in answers)
    if cut:
        console.say(f"{cut} of {len(found)} rows were too long and were cut")
    blank = sum(is_unsure(bound, answer, min_probability) for answer in answers)
    if min_probability is not None:
        console.say(f"{blank} of {len(answers)} answers are below {min_probability} and left blank")
    if out is not None:
        write_rows(out, lines, like=data)
    if as_json:
        about = {"rows": len(lines), "cut": cut, "blank": blank, "out": out}
        skipped = [*unread.reasons, *unanswered.reasons]
        console.emit({**about, "skipped": skipped, "predictions": lines})
        return
    if out is not None:
        console.say(f"{out}: {len(lines)} rows")
        return
    for answer in found:
        if answer is None:
            console.line("-")
            continue
        value, chances = answer[bound.answer], answer.get("probabilities", {})
        unsure = is_unsure(bound, answer, min_probability)
        line = tables.answer_line(value, chances)
        console.line(f"-  (unsure: {line})" if unsure else line)
