"""The prompts of a folder as a table, their similarities as a heat map, and both as a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from foreword.report.tables import short

ACROSS = 10
"""Columns of the heat map that stand side by side in 80."""


def prompts(found: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the prompts of a folder, and how similar each is to one asked about (``like``)."""
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    made.add_column("", justify="right", no_wrap=True)
    for name in ("file", "task and labels", "model", "method"):
        made.add_column(name, overflow="fold")
    like = any("like" in each for each in found)
    for name in ("size", "dev", "test", "nearest", *(["like"] if like else [])):
        made.add_column(name, justify="right", no_wrap=True)
    numbers = {each["file"]: number for number, each in enumerate(found, start=1)}
    for number, each in enumerate(found, start=1):
        labels = ", ".join(each["labels"][:4]) + (" ..." if len(each["labels"]) > 4 else "")
        scores = [each["scores"].get(name) for name in ("dev", "test")]
        near = each["nearest"]
        cells: list[str | Text] = [
            str(number),
            Text(each["file"].removesuffix(".safetensors")),
            Text(f"{each['task']}: {labels}" if labels else each["task"]),
            Text(Path(each["backbone"]["name"]).name),
            Text(each["method"]),
            short(each["bytes"], 1024, (" B", " K", " M", " G")),
            *("" if score is None else f"{next(iter(score.values())):.1f}" for score in scores),
            "" if near is None else f"{numbers[near['file']]}: {near['similarity']:.2f}",
        ]
        if like:
            cells.append("" if each["like"] is None else f"{each['like']:.2f}")
        made.add_row(*cells)
    return made


def heat_map(files: Sequence[str], similarities: Sequence[Sequence[float | None]]) -> list[Table]:
    """Lay out all similarities as coloured numbers, as many columns at a time as have room."""
    tables = []
    count = len(files)
    for start in range(0, count, ACROSS):
        columns = range(start, min(count, start + ACROSS))
        made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
        made.add_column("similarity" if start == 0 else "", overflow="fold")
        for column in columns:
            made.add_column(str(column + 1), justify="right", no_wrap=True)
        for place, file in enumerate(files):
            cells = [_cell(similarities[place][c], c == place) for c in columns]
            made.add_row(Text(f"{place + 1} {file.removesuffix('.safetensors')}"), *cells)
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
