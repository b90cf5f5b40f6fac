"""Prompts made anew as a table: old and new score, their difference, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from foreword.metrics.titles import title

SAID = {
    "kept": "kept",
    "worse": "worse: not written",
    "same model": "of this model: copied",
    "failed": "failed",
}
"""What is said of an outcome."""


def retuned(found: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out prompts made anew."""
    header, rows = cells(found)
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        words = name in ("prompt", "")
        made.add_column(name, justify="left" if words else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def cells(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table."""
    rows = []
    for each in found:
        scores = ["" if each[name] is None else f"{each[name]:.2f}" for name in ("old", "new")]
        gain = ""
        if each["gain"] is not None:
            gain = f"{each['gain']:+.2f} ({each['low']:+.2f} to {each['high']:+.2f})"
        said = SAID[each["outcome"]]
        metric = "" if each["metric"] is None else title(each["metric"])
        rows.append([each["file"].removesuffix(".safetensors"), metric, *scores, gain, said])
    return ["prompt", "metric", "old", "new", "difference a row", ""], rows
