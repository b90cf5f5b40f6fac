"""Tables that fit 80 columns: scores, settings and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from foreword.html import html_table
from foreword.metrics.titles import ABSTAINING, IN_UNITS, MAIN, title

BAR = 40
"""Columns of the longest bar in a picture."""


def scores(result: Mapping[str, Any], name: str, titles: Mapping[str, str] = MAIN) -> Table:
    """Lay out a prompt's scores above those of its baselines, with 95% intervals."""
    shown = [metric for metric in titles if metric in result] or list(result["intervals"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for metric in shown:
        table.add_column(title(metric), justify="right")
    entries = {name: result}
    for key, value in result.get("baselines", {}).items():
        entries[_called(key, value)] = value
    for label, values in entries.items():
        cells = []
        for metric in shown:
            cells.append(with_interval(metric, values[metric], values["intervals"][metric]))
        table.add_row(label, *cells)
    return table


def _called(name: str, values: Mapping[str, Any]) -> str:
    """Return what a baseline is called in a table."""
    if "shots" in values:
        return f"{values['shots']} {name} in context"
    return f"{values['model']} on states" if "model" in values else name


def abstaining(result: Mapping[str, Any]) -> Table:
    """Lay out what is answered from a probability on, a line a score."""
    why = " (95% of the right ones)" if result["fitted"] else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"answers from {result['min_probability']:.4f} on{why}")
    table.add_column("%", justify="right")
    for metric, name in ABSTAINING.items():
        if metric in result:
            table.add_row(name, with_interval(metric, result[metric], result["intervals"][metric]))
    return table


def html_of(table: Table) -> str:
    """Return a table as HTML."""
    header = [column.header for column in table.columns]
    return html_table(header, zip(*(column.cells for column in table.columns), strict=True))


def answer_line(answer: Any, chances: Mapping[str, float]) -> str:
    """Return an answer as one line, with its probability if it has one."""
    if isinstance(answer, list):
        own = [f"{each} ({chances[each]:.0%})" if each in chances else each for each in answer]
        return (", " if chances else " ").join(own) or "-"
    if isinstance(answer, float):
        return f"{answer:.2f}"
    return f"{answer}  ({chances[answer]:.0%})" if answer in chances else str(answer)


def curve(result: Mapping[str, Any]) -> Table:
    """Lay out a score over the number of tokens that are read, with a bar of its size."""
    metric = result["metric"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tokens", justify="right")
    table.add_column(title(metric), justify="right")
    table.add_column("")
    most = max((each[metric] for each in result["curve"]), default=0)
    for each in result["curve"]:
        size = round(BAR * max(0.0, each[metric]) / most) if most > 0 else 0
        score = with_interval(metric, each[metric], each["intervals"][metric])
        table.add_row(str(each["window"] or "all"), score, "█" * size)
    return table


def with_interval(metric: str, value: float, bounds: Sequence[float]) -> str:
    """Write a score with its interval behind it."""
    decimals = 2 if metric in IN_UNITS else 1
    low, high = (f"{bound:.{decimals}f}" for bound in bounds)
    sign = " to " if low.startswith("-") else "-"
    return f"{value:.{decimals}f} ({low}{sign}{high})"


def per_class(result: Mapping[str, Any]) -> Table:
    """Lay out precision, recall and F1 of each label."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("label", "precision", "recall", "F1", "rows"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label, values in result["per_class"].items():
        table.add_row(
            label,
            f"{values['precision']:.1f}",
            f"{values['recall']:.1f}",
            f"{values['f1']:.1f}",
            str(values["support"]),
        )
    return table


def confusion(result: Mapping[str, Any], most: int = 8) -> Table:
    """Lay out the confusion matrix of few labels, or the most frequent confusions of many."""
    labels, matrix = result["confusion"]["labels"], result["confusion"]["matrix"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    if len(labels) <= 6:
        table.add_column("label \\ predicted")
        for label in labels:
            table.add_column(label[:12], justify="right")
        for label, row in zip(labels, matrix, strict=True):
            table.add_row(label, *map(str, row))
        return table
    for column in ("label", "taken for", "rows"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    wrong = [
        (count, labels[i], labels[j])
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    for count, gold, taken in sorted(wrong, key=lambda entry: -entry[0])[:most]:
        table.add_row(gold, taken, str(count))
    return table


def short(number: float, step: int, units: tuple[str, ...]) -> str:
    """Write a number with three digits or so.

    >>> short(134515008, 1000, ("", "k", "M", "G"))
    '135M'
    """
    unit = 0
    while number >= step and unit + 1 < len(units):
        number, unit = number / step, unit + 1
    digits = 1 if unit and number < 10 else 0
    return f"{number:.{digits}f}{units[unit]}"
