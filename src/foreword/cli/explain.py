"""The command that says what a prompt has learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from foreword.cli.reading import USUAL, Read
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Seed, Whole
from foreword.data.folder import DEV
from foreword.display import console
from foreword.errors import UserError
from foreword.files import check_place_of_tensors

if TYPE_CHECKING:
    from foreword.explanation.explanation import Explanation
    from foreword.prompt.prompt import Prompt


def explain(
    prompt: PromptFile,
    *,
    data: Annotated[File | None, Parameter(help="rows with their answers")] = None,
    text: Annotated[str | None, Parameter(help="an input to explain; else the first row")] = None,
    rows: Annotated[Whole, Parameter(help="the most rows, after shuffling with the seed")] = 64,
    save_text: Annotated[
        Path | None,
        Parameter(help="a prompt file to write, with the best text in it", group=OUTPUT),
    ] = None,
    reading: Read = USUAL,
    seed: Annotated[Seed, Parameter(help="decides the rows and what is sampled")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say what a prompt has learned: importance, attention, words; and why it answers so."""
    from foreword.explanation.explain import check_classes
    from foreword.explanation.explain import explain as do
    from foreword.explanation.show import tables
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.fields import text_fields_of

    if data is None and text is None:
        raise UserError("nothing to explain it by; give --data, --text or both")
    if save_text is not None:
        if data is None:
            raise UserError("--save-text needs rows to choose the text by; give --data")
        check_place_of_tensors(save_text, prompt)
    loaded = Prompt.load(prompt)
    chosen = None
    if data is not None:
        chosen = reading.rows(data, DEV, fields=text_fields_of(loaded.task))
    tuned = on_backbone(loaded, prompt, model, loading, force=force)
    if chosen is not None:
        chosen = reading.usable(chosen, tuned.bound)
        tuned.bound.check(chosen, answers=True)
        check_classes(tuned.bound, str(data), chosen)
    found = do(tuned, chosen, text=text, rows=rows, seed=seed, report=CommandTerminal())
    saved = None if save_text is None else _save(tuned, found, save_text)
    if as_json:
        console.emit(found.to_dict() if save_text is None else {**found.to_dict(), "saved": saved})
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
    if saved is not None:
        screen.print(f"\n{save_text}: the prompt, with this text to stand in its place:")
        console.line(saved)


def _save(prompt: Prompt, found: Explanation, path: Path) -> str | None:
    """Write the prompt with its best description, and return that; None where there is none."""
    best = None if found.words is None else found.words.best
    if best is None:
        none = "no text scores better than none, and than one that says nothing"
        why = found.left_out.get("words", none)
        console.say(f"{path} is not written: {why}")
        return None
    prompt.with_text(best.text).save(path)
    return best.text
