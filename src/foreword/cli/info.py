"""The command that shows what a prompt file holds."""

from __future__ import annotations

from foreword.cli.common import Json, PromptFile
from foreword.display import console
from foreword.display.facts import facts
from foreword.prompt.file import read_file
from foreword.prompt.texts import in_one_line


def info(prompt: PromptFile, *, as_json: Json = False) -> None:
    """Show what a prompt file holds; no model is loaded."""
    file = read_file(prompt)
    held = {"file": str(prompt), "bytes": prompt.stat().st_size, **file.facts()}
    if as_json:
        shapes = {name: list(array.shape) for name, array in file.arrays.items()}
        console.emit({**held, "tensors": shapes})
        return
    texts = in_one_line(held["texts"])
    console.out().print(facts({**held, "texts": f"{texts} in clear" if held["texts"] else texts}))
