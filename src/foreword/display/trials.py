"""The trials of a search as a table, the best ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from foreword.display.facts import in_words
from foreword.metrics.titles import title

REPEATED = "the same as trial "
"""How the reason begins of a trial whose settings had been tried."""

MOST = 10
"""Trials in the table at most."""


def trials(found: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """Lay out trials: number, method, settings, dev score and seconds."""
    header, rows = cells(found, metric)
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for name in header:
        words = name in ("method", "settings")
        made.add_column(
            name, justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def models(looks: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the first looks at base models, the best one first."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("model", overflow="fold")
    for name in ("zero-shot", "probe", "MB", "ms"):
        made.add_column(name, justify="right")
    made.add_column("left out", overflow="fold")
    names = ("zero_shot", "probe", "megabytes", "milliseconds")
    for each in looks:
        numbers = ["" if each[name] is None else f"{each[name]:.1f}" for name in names]
        made.add_row(*map(Text, [each["model"], *numbers, each["reason"] or ""]))
    return made


def texts(found: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """Lay out hard prompts, the best ones first."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("text", overflow="fold")
    made.add_column("from", overflow="fold")
    for name in (f"dev {title(metric)}", "loss", "nats a token"):
        made.add_column(name, justify="right")
    for each in found[:MOST]:
        nats = "" if each["nats"] is None else f"{each['nats']:.1f}"
        numbers = [f"{each['score']:.2f}", f"{each['loss']:.3f}", nats]
        made.add_row(*map(Text, [each["text"], each["source"], *numbers]))
    return made


def cells(found: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows: the best of the trials that came to their end."""
    ended = [
        each
        for each in found
        if each["state"] == "complete" and not (each["reason"] or "").startswith(REPEATED)
    ]
    ended = sorted(ended, key=lambda each: (-each["score"], each["number"]))[:MOST]
    header = ["trial", "method", "settings", f"dev {title(metric)}", "seconds"]
    rows = [
        [
            str(each["number"]),
            each["method"],
            settings(each["settings"]),
            f"{each['score']:.2f}",
            f"{each['seconds']:.1f}",
        ]
        for each in ended
    ]
    return header, rows


def settings(given: Mapping[str, Any]) -> str:
    """Write settings in one line, numbers with three digits; those that are left open are not."""
    shown = {n.replace("_", " "): v for n, v in given.items() if v is not None}
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {in_words(value)}"
        for name, value in shown.items()
    )
