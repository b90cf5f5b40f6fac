"""The command that makes the prompts of a folder anew on another model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Json, Loaded
from foreword.cli.completion import File
from foreword.cli.panels import DATA, MODEL, OUTPUT
from foreword.cli.terminal import CommandTerminal
from foreword.display import console
from foreword.display.retuned import retuned
from foreword.errors import UserError
from foreword.training.interrupt import Interrupted


def retune(
    folder: Annotated[Path, Parameter(help="a folder of prompt files, and of folders of them")],
    /,
    *,
    model: Annotated[File, Parameter(help="the model to make them anew on", group=MODEL)],
    out: Annotated[Path, Parameter(help="the folder of the new prompts", group=OUTPUT)],
    train: Annotated[
        list[File] | None,
        Parameter(
            help="files of the rows they were tuned on; else those that their logs name",
            group=DATA,
            consume_multiple=True,
        ),
    ] = None,
    dev: Annotated[
        list[File] | None,
        Parameter(
            help="files of the rows they were judged by; else those that their logs name",
            group=DATA,
            consume_multiple=True,
        ),
    ] = None,
    loading: Loaded = USUALLY,
    as_json: Json = False,
) -> None:
    """Make each prompt of a folder anew on another model, from its own settings and rows.

    A new prompt is kept where its score is not worse than the old one's beyond chance, on the same
    dev rows. The old prompts stay. The same command goes on where it was stopped.
    """
    from foreword.retuning.retune import retune as do

    backbone = loading.load(model)
    try:
        found = do(
            folder, backbone, out, train=train or (), dev=dev or (), report=CommandTerminal()
        )
    except Interrupted as error:
        raise KeyboardInterrupt(f"{error}; the same command goes on") from None
    result = found.to_dict()
    if as_json:
        console.emit(result)
    else:
        console.out().print(retuned(result["prompts"]))
        for each in found.prompts:
            if each.reason is not None:
                console.say(f"{each.file}: {each.reason}")
        console.line(f"{out}: {found.count('kept')} of {len(found.prompts)} prompts were made anew")
    if failed := found.count("failed"):
        raise UserError(
            f"{failed} of {len(found.prompts)} prompts could not be made anew; the same command "
            "tries them again"
        )
