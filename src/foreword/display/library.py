"""The prompts of a folder as a table, their similarities as a heat map, and both as a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from foreword.display.tables import short

ACROSS = 10
"""Columns of the heat map that stand side by side in 80."""

WIDEST = 16
"""Characters of a file's name that stand in one line."""


def prompts(found: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the prompts of a folder, and how similar each is to one asked about (``like``).

    A column that would be empty is left out.
    """
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    made.add_column("", justify="right", no_wrap=True)
    longest = max((len(each["file"].removesuffix(".safetensors")) for each in found), default=0)
    made.add_column("file", overflow="fold", min_width=min(longest, WIDEST))
    for name in ("task and labels", "model", "method"):
        made.add_column(name, overflow="fold")
    numbers = {each["file"]: number for number, each in enumerate(found, start=1)}
    rows = [_numbers(each, numbers) for each in found]
    shown = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    for name in shown:
        made.add_column(name, justify="right", no_wrap=True)
    for each, row in zip(found, rows, strict=True):
        labels = ", ".join(each["labels"][:4]) + (" ..." if len(each["labels"]) > 4 else "")
        made.add_row(
            str(numbers[each["file"]]),
            Text(each["file"].removesuffix(".safetensors")),
            Text(f"{each['task']}: {labels}" if labels else each["task"]),
            Text(Path(each["backbone"]["name"]).name),
            Text(each["method"]),
            *(row[name] for name in shown),
        )
    return made


def _numbers(entry: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, str]:
    """Return the cells of a prompt that are numbers, by column; empty where it has none."""
    scores = {name: entry["scores"].get(name) for name in ("dev", "test")}
    near, like = entry["nearest"], entry.get("like")
    return {
        "size": short(entry["bytes"], 1024, (" B", " K", " M", " G")),
        **{n: "" if s is None else f"{next(iter(s.values())):.1f}" for n, s in scores.items()},
        "nearest": "" if near is None else f"{numbers[near['file']]}: {near['similarity']:.2f}",
        "like": "" if like is None else f"{like:.2f}",
    }


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
