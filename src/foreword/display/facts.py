"""What a prompt file or a run holds, as aligned lines: a name, and its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from foreword.display.tables import with_interval
from foreword.grammar import counted
from foreword.metrics.titles import MAIN, title

Line = tuple[str, str, str]
"""A style, a name, and a value as one text."""

DIGITS = 12
"""Digits of a hash that are shown."""

SECTIONS = ("method", "methods", "training", "decoding")
"""Objects inside others that have lines of their own."""


def facts(pairs: Mapping[str, Any]) -> Table:
    """Lay out names and values in two columns, a section for each object; unset ones are left out.

    A hash is cut short.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for style, name, value in _lines(pairs):
        table.add_row(Text(name, style=style), Text(value, style=style))
    return table


def _lines(pairs: Mapping[str, Any]) -> Iterator[Line]:
    objects = {name: value for name, value in pairs.items() if isinstance(value, Mapping)}
    yield from (("", n, in_words(v)) for n, v in pairs.items() if _shown(v) and n not in objects)
    for name, value in objects.items():
        if value:
            yield "", "", ""
            yield from _section(name, value)


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Line]:
    """Yield a line for each score, and for those of its baselines."""
    for name, values in scores.items():
        yield "", f"  {name}", _score(values)
        for below, each in values.items():
            if isinstance(each, Mapping) and below != "intervals":
                yield "", f"  {name}, {below}", _score(each)


def _score(values: Mapping[str, Any]) -> str:
    """Write the scores that people look at, with their intervals, and the number of rows."""
    metrics = [m for m in MAIN if m in values] or [
        metric for metric, value in values.items() if isinstance(value, float)
    ]
    bounds = values.get("intervals", {})
    shown = []
    for metric in metrics:
        value = values[metric]
        text = with_interval(metric, value, bounds[metric]) if metric in bounds else in_words(value)
        shown.append(f"{title(metric)} {text}")
    return ", ".join(shown) + (f" on {counted(values['rows'], 'row')}" if "rows" in values else "")


def _section(called: str, values: Mapping[str, Any]) -> Iterator[Line]:
    """Yield a title and the lines below it, and then the sections of objects among the values."""
    yield "bold", called, str(values.get("name", ""))
    if called == "scores":
        yield from _scores(values)
        return
    further = {name: value for name, value in values.items() if _is_section(name, value)}
    for name, value in values.items():
        if name == "scores":
            yield from _scores(value)
        elif name != "name" and name not in further and _shown(value):
            yield "", f"  {name}", in_words(value)
    for name, value in further.items():
        several = enumerate(value, 1) if isinstance(value, list | tuple) else [("", value)]
        for number, each in several:
            yield from _section(f"{name} {number}".rstrip(), each)


def _is_section(name: str, value: Any) -> bool:
    """Whether a value has lines of its own, and not one: settings, or those of several methods."""
    return name in SECTIONS and isinstance(value, Mapping | list | tuple)


def _shown(value: Any) -> bool:
    return value is not None and value not in ({}, [], ())


def in_words(value: Any) -> str:
    """Write a JSON value for people: no quotes and no brackets, nothing that is unset.

    >>> in_words({"rows": 20, "sha256": "f7e01c7d7885fb59d1c34de351d9d5fc"})
    'rows 20, sha256 f7e01c7d7885'
    """
    if isinstance(value, Mapping):
        shown = {name: each for name, each in value.items() if _shown(each)}
        return ", ".join(_pair(name, each) for name, each in shown.items())
    if isinstance(value, list | tuple):
        return ", ".join(in_words(each) for each in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("\n", "\\n")


def _pair(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{name} {value.get('name') or in_words(value)}"
    if isinstance(value, list | tuple):  # the words of a label
        words = [str(each).strip() for each in value]
        return name if words == [name] else f"{name}={','.join(words)}"
    text = in_words(value)
    return f"{name} {text[:DIGITS] if name == 'sha256' else text}"
