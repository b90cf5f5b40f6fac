"""The command that says what a prompt has learned."""

from __future__ import annotations

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
from foreword.data.folder import DEV
from foreword.display import console
from foreword.errors import UserError


def explain(
    prompt: PromptFile,
    *,
    data: Annotated[File | None, Parameter(help="rows with their answers")] = None,
    text: Annotated[str | None, Parameter(help="an input to explain; else the first row")] = None,
    rows: Annotated[int, Parameter(help="the most rows, after shuffling with the seed")] = 64,
    reading: Read = USUAL,
    seed: Annotated[int, Parameter(help="decides the rows and what is sampled")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say what a prompt has learned: importance, attention, words; and why it answers so."""
    from foreword.explanation.explain import explain as do
    from foreword.explanation.show import tables
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.fields import fields_of

    if data is None and text is None:
        raise UserError("nothing to explain it by; give --data, --text or both")
    loaded = Prompt.load(prompt)
    chosen = None
    if data is not None:
        chosen = reading.rows(data, DEV, fields=fields_of(loaded.task))
    tuned = on_backbone(loaded, prompt, model, loading, force=force)
    found = do(tuned, chosen, text=text, rows=rows, seed=seed, report=CommandTerminal())
    if as_json:
        console.emit(found.to_dict())
        return
    console.line(f"{prompt}: {found.method} for {found.task} on {found.model}")
    screen = console.out()
    for title, table in tables(found):
        screen.print(f"\n{title}")
        screen.print(table)
    if found.left_out:
        screen.print("\nLeft out")
    for part, why in found.left_out.items():
        screen.print(f"{part}: {why}")
