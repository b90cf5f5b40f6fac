"""The commands that show a prompt's labels, add one, and take one away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from foreword.cli.commands import HELP
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
from foreword.display import console
from foreword.display.facts import in_words
from foreword.errors import UserError
from foreword.files import check_place_of_tensors
from foreword.grammar import counted
from foreword.prompt.file import read_prompt

labels = App(name="labels", help_flags=HELP)

Out = Annotated[Path, Parameter(help="the prompt file to write", group=OUTPUT)]
Label = Annotated[str, Parameter(help="the label's name")]


@labels.default
def list_labels(prompt: PromptFile, *, as_json: Json = False) -> None:
    """Show a prompt's labels and their words; no model is loaded.

    foreword labels add and foreword labels remove change them, without training.
    """
    file = read_prompt(prompt)
    found = file.task.get("labels")
    if not found:
        raise UserError(f"{prompt}: a task of kind {file.task['name']} has no labels")
    words = {name: [own] if isinstance(own, str) else list(own) for name, own in found.items()}
    if as_json:
        changes = file.meta["data"].get("labels", [])
        console.emit({"file": str(prompt), "labels": words, "changes": changes})
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, own in words.items():
        table.add_row(Text(name), Text(in_words([word.strip() for word in own])))
    console.out().print(table)


@labels.command(help_flags=HELP)
def add(
    prompt: PromptFile,
    label: Label,
    /,
    *,
    out: Out,
    word: Annotated[
        list[str] | None, Parameter(help="words that stand for it; else those of its name")
    ] = None,
    description: Annotated[
        str | None, Parameter(help="what it means, for a prompt with a head")
    ] = None,
    data: Annotated[
        File | None, Parameter(help="a few rows of it, for a prompt with a head")
    ] = None,
    reading: Read = USUAL,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Add a label to a prompt without training.

    A prompt that scores label words takes the words of the label's name, or --word. A head is given
    one more row of weights: by rows, whose other labels, where there are some, make it better; by a
    description; or by the name.
    """
    from foreword.prompt.prompt import Prompt

    check_place_of_tensors(out)
    loaded = Prompt.load(prompt)
    rows = None if data is None else reading.rows(data)
    tuned = on_backbone(loaded, prompt, model, loading, force=force)
    made = tuned.add_label(label, word, description=description, rows=rows)
    _save(made, out, f"label '{label}' added by {made.data['labels'][-1]['by']}", as_json)


@labels.command(help_flags=HELP)
def remove(prompt: PromptFile, label: Label, /, *, out: Out, as_json: Json = False) -> None:
    """Take a label away from a prompt, which then gives it to no row; no model is loaded."""
    from foreword.prompt.prompt import Prompt

    check_place_of_tensors(out)
    made = Prompt.load(prompt).remove_label(label)
    _save(made, out, f"label '{label}' removed", as_json)


def _save(made: Any, out: Path, said: str, as_json: bool) -> None:
    from foreword.tasks.multilabel import Multilabel

    made.save(out)
    if as_json:
        console.emit(
            {"out": str(out), "labels": list(made.task.labels), "changes": made.data["labels"]}
        )
        return
    count = len(made.task.labels) - isinstance(made.task, Multilabel)  # whose `none` is no label
    console.line(f"{out}: {said}; {counted(count, 'label')}")
