"""A report as one HTML file: templates of Jinja, which escape whatever is of the user."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from foreword.display.tables import short
from foreword.explanation.explanation import Attribution
from foreword.metrics.titles import title
from foreword.report.changes import Confusion
from foreword.report.left_out import LeftOut
from foreword.report.page import charts, explained
from foreword.report.page.figures import check_matplotlib

CUT = 400
"""Characters of a text that are shown."""

STRONGEST = 12
"""Virtual tokens whose contributions are shown."""

WORST = 12
"""Confusions that are listed where there are too many labels for a matrix."""


def page(report: Any) -> str:
    """Return a report as one page, which needs nothing from elsewhere."""
    check_matplotlib()
    style = (files("foreword.report.page") / "templates" / "style.css").read_text("utf-8")
    made = templates().get_template("page.html")
    return str(
        made.render(
            report=report,
            charts=charts,
            explained=explained,
            style=Markup(style),
            version=version("foreword"),
        )
    )


@functools.cache
def templates() -> Any:
    """Return the templates of pages, with what they write numbers and texts by."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("foreword.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["left_out"] = lambda value: isinstance(value, LeftOut)
    made.filters |= {
        "number": lambda value, digits=1: _number(value, digits),
        "signed": lambda value, digits=1: f"{'+' if value >= 0 else '−'}{abs(value):.{digits}f}",
        "large": _large,
        "cut": cut,
        "size": lambda value: short(value, 1024, (" B", " KiB", " MiB", " GiB")),
        "title_of": title,
        "worst": lambda found: list(_worst(found))[:WORST],
        "strongest": _strongest,
        "strongest_first": lambda parts: sorted(parts, key=lambda e: -abs(e.value))[:STRONGEST],
        "chance": lambda p: "below 0.001" if p < 0.001 else f"{p:.3f}",
    }
    return made


def _number(value: float, digits: int) -> str:
    """Write a number, its sign as a minus."""
    written = f"{value:.{digits}f}"
    return written.replace("-", "−") if float(written) else f"{0:.{digits}f}"


def _large(value: float) -> str:
    """Write a number of any size with few digits."""
    if value >= 1e6:
        return "over a million"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _strongest(found: Attribution) -> float:
    """Return the size of the largest contribution."""
    return max((abs(each.value) for each in (*found.tokens, *found.virtual)), default=0.0) or 1.0


def cut(text: object, most: int = CUT) -> str:
    """Cut a text that is too long to be shown.

    >>> cut("a long text", 6)
    'a lon…'
    """
    said = str(text)
    return said if len(said) <= most else f"{said[: most - 1]}…"


def _worst(found: Confusion) -> Iterator[tuple[str, str, int, int]]:
    """Yield labels that are taken for others, the most frequent after tuning first."""
    names = list(enumerate(found.labels))
    pairs = [
        (gold, taken, found.before[i][j], found.after[i][j])
        for i, gold in names
        for j, taken in names
        if i != j and (found.before[i][j] or found.after[i][j])
    ]
    yield from sorted(pairs, key=lambda pair: (-pair[3], -pair[2]))
