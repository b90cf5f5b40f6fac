"""The command that shows the prompts in a folder, and which of them are alike."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from foreword.cli.common import Json
from foreword.cli.words import with_flags
from foreword.compose import catalogue
from foreword.compose.catalogue import Catalogue
from foreword.errors import UserError
from foreword.files import write_whole
from foreword.report import console, tables
from foreword.training.terminal import Terminal

ACROSS = 10
"""Columns of the heat map that stand side by side in 80."""


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
    similarity: Annotated[
        bool, Parameter(negative="", help="show how similar they are, two by two")
    ] = False,
    html: Annotated[Path | None, Parameter(help="write what is shown as a page")] = None,
    as_json: Json = False,
) -> None:
    """Show the prompts in a folder: task, model, method, size, scores, nearest neighbour.

    No model is loaded.
    """
    found = catalogue.read_catalogue(folder, Terminal())
    if match is not None:
        found = found.matching(match)
        if not found.entries:
            raise UserError(f"--match {match}: no prompt in {folder} has this text")
    to: Sequence[float | None] | None = None
    if like is not None:
        found, to = found.by_similarity(catalogue.read_entry(like))
    shown = Group(table(found, to), *([Text(), *heat_map(found)] if similarity else ()))
    if html is not None:
        write_whole(html, page(shown).encode())
    if as_json:
        console.emit(_plain(found, to, similarity))
        return
    if html is not None:
        console.say(f"{html}: {len(found.entries)} prompts")
    console.out().print(shown)
    for file, reason in found.unreadable:
        console.say(f"no prompt: {file}: {with_flags(reason)}")


def table(found: Catalogue, to: Sequence[float | None] | None = None) -> Table:
    """Lay the prompts out; ``to`` holds their similarities to one that was asked about."""
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    made.add_column("", justify="right", no_wrap=True)
    for name in ("file", "task and labels", "model", "method"):
        made.add_column(name, overflow="fold")
    for name in ("size", "dev", "test", "nearest", *([] if to is None else ["like"])):
        made.add_column(name, justify="right", no_wrap=True)
    for place, each in enumerate(found.entries):
        near = found.nearest(place)
        labels = ", ".join(each.labels[:4]) + (" ..." if len(each.labels) > 4 else "")
        scores = [each.scores.get(name) for name in ("dev", "test")]
        cells: list[str | Text] = [
            str(place + 1),
            Text(each.file.removesuffix(".safetensors")),
            Text(f"{each.task}: {labels}" if labels else each.task),
            Text(Path(each.backbone).name),
            Text(each.method),
            tables.short(each.bytes, 1024, (" B", " K", " M", " G")),
            *("" if score is None else f"{score[1]:.1f}" for score in scores),
            "" if near is None else f"{near[0] + 1}: {near[1]:.2f}",
        ]
        if to is not None:
            value = to[place]
            cells.append("" if value is None else f"{value:.2f}")
        made.add_row(*cells)
    return made


def heat_map(found: Catalogue) -> list[Table]:
    """Lay out all similarities as coloured numbers, as many columns at a time as have room."""
    tables = []
    count = len(found.entries)
    for start in range(0, count, ACROSS):
        columns = range(start, min(count, start + ACROSS))
        made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
        made.add_column("similarity" if start == 0 else "", overflow="fold")
        for column in columns:
            made.add_column(str(column + 1), justify="right", no_wrap=True)
        for place, each in enumerate(found.entries):
            cells = [_cell(found.similarities[place][c], c == place) for c in columns]
            made.add_row(Text(f"{place + 1} {each.file.removesuffix('.safetensors')}"), *cells)
        tables.append(made)
    return tables


def _cell(value: float | None, own: bool) -> Text:
    """Write a similarity on a colour: white for 0, red towards 1, blue towards -1."""
    if value is None:
        return Text("" if own else "-", justify="right")
    fade = round(255 * (1 - min(1.0, abs(value))))
    colour = f"#ff{fade:02x}{fade:02x}" if value > 0 else f"#{fade:02x}{fade:02x}ff"
    return Text(f"{value:5.2f}", style=f"black on {colour}")


def page(shown: Group) -> str:
    """Return what is shown as HTML that loads nothing from elsewhere."""
    wide = Console(record=True, width=140, file=io.StringIO(), markup=False, emoji=False)
    wide.print(shown)
    return wide.export_html(inline_styles=True)


def _plain(
    found: Catalogue, to: Sequence[float | None] | None, similarity: bool
) -> dict[str, object]:
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
    result: dict[str, object] = {"prompts": entries, "strays": strays}
    return {**result, "similarity": found.similarities} if similarity else result
