"""The command that shows the prompts in a folder, and which of them are alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from foreword.cli.advice import with_flags
from foreword.cli.common import Json
from foreword.cli.report import check_page
from foreword.cli.terminal import CommandTerminal
from foreword.compose import catalogue
from foreword.compose.catalogue import Catalogue
from foreword.display import console
from foreword.display import library as pictures
from foreword.errors import UserError
from foreword.files import write_whole
from foreword.grammar import counted


def library(
    folder: Annotated[Path, Parameter(help="a folder of prompt files, and of folders of them")],
    /,
    *,
    match: Annotated[
        str | None, Parameter(help="only prompts with this text in file, task, label, model ...")
    ] = None,
    like: Annotated[
        Path | None, Parameter(help="a prompt; those most similar to it come first")
    ] = None,
    similarity: Annotated[bool, Parameter(help="show how similar they are, two by two")] = False,
    html: Annotated[Path | None, Parameter(help="write what is shown as a page")] = None,
    as_json: Json = False,
) -> None:
    """Show the prompts in a folder: task, model, method, size, scores, nearest neighbour.

    No model is loaded.
    """
    if html is not None:
        check_page(html)
    found = catalogue.read_catalogue(folder, CommandTerminal())
    if match is not None:
        found = found.matching(match)
        if not found.entries:
            raise UserError(f"--match {match}: no prompt in {folder} has this text")
    to: Sequence[float | None] | None = None
    if like is not None:
        found, to = found.by_similarity(catalogue.read_entry(like))
    result = _plain(found, to)
    parts: list[Table | Text] = [pictures.prompts(result["prompts"])]
    if similarity:
        result["similarity"] = found.similarities
        files = [entry.file for entry in found.entries]
        parts += [Text(), *pictures.heat_map(files, found.similarities)]
    shown = Group(*parts)
    if html is not None:
        write_whole(html, pictures.page(shown).encode())
    if as_json:
        console.emit(result)
        return
    if html is not None:
        console.say(f"{html}: {counted(len(found.entries), 'prompt')}")
    console.out().print(shown)
    for file, reason in found.unreadable:
        console.say(f"no prompt: {file}: {with_flags(reason)}")


def _plain(found: Catalogue, to: Sequence[float | None] | None) -> dict[str, Any]:
    """Return the prompts as JSON; ``to`` holds their similarities to one that was asked about."""
    entries = []
    for place, each in enumerate(found.entries):
        near = found.nearest(place)
        made: dict[str, object] = {
            "file": each.file,
            "task": each.task,
            "labels": each.labels,
            "backbone": {"name": each.backbone, "fingerprint": each.fingerprint},
            "method": each.method,
            "bytes": each.bytes,
            "scores": {name: {metric: value} for name, (metric, value) in each.scores.items()},
            "nearest": None,
        }
        if near is not None:
            made["nearest"] = {"file": found.entries[near[0]].file, "similarity": near[1]}
        if to is not None:
            made["like"] = to[place]
        entries.append(made)
    strays = [{"file": file, "reason": with_flags(reason)} for file, reason in found.unreadable]
    return {"prompts": entries, "strays": strays}
