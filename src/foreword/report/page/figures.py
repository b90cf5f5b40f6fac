"""Figures as SVG inside a page: they take the page's fonts, and its colours, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from foreword.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "ink": "#010a01",
    "faint": "#010a02",
    "line": "#010a03",
    "tuned": "#010a04",
    "before": "#010a05",
    "good": "#010a06",
    "bad": "#010a07",
    "other": "#010a08",
    "paper": "#010a09",
}
"""Names of the page's colours; in a figure each is a number that is then put in words."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar sign in a label is one
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["faint"],
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["faint"],
    "ytick.labelcolor": COLOURS["ink"],
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.solid_capstyle": "round",
}

WIDTH = 4.3
"""Inches of a figure: as wide as a phone, so that its text is read there too."""


POINTS = 12.0
"""Points of a figure that are one rem of a page."""


def check_matplotlib() -> None:
    """Raise UserError where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("a report needs matplotlib: pip install 'foreword[plot]'") from None


@dataclass
class Drawing:
    """A figure that is being drawn, with its axes; ``svg`` is it as markup, once it is."""

    figure: Figure
    axes: Axes
    svg: Markup = field(default_factory=Markup)


@contextmanager
def drawing(title: str, height: float, width: float = WIDTH) -> Iterator[Drawing]:
    """Draw a figure of so many inches; ``title`` says what it shows to who cannot see it."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**STYLE, "svg.hashsalt": title}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib has not, the browser has
        figure = Figure(figsize=(width, height), layout="constrained")
        made = Drawing(figure, figure.subplots())
        yield made
        written = io.BytesIO()
        nothing: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", metadata=nothing, transparent=True)
    made.svg = Markup(_inline(written.getvalue().decode(), title))


_NUMBER = iter(range(1, 10**9))


def _inline(text: str, title: str) -> str:
    """Return an SVG file as an element of a page, with ids that no other figure has."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    for name, number in COLOURS.items():
        text = text.replace(number, f"var(--{name})")
    text = re.sub(r"((?:[\d.]+px) )'[^;\"]*?sans-serif", r"\1var(--sans)", text)
    mark = f"f{next(_NUMBER)}-"
    text = re.sub(r'\bid="', f'id="{mark}', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{mark}", text)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d{2})\d+", r"\1", tag[0]), text)
    size = re.search(r'viewBox="([^"]+)"', text)
    assert size is not None
    most = round(float(size[1].split()[2]) / POINTS * 0.95, 1)
    look = f'style="max-width: {most}rem" role="img" aria-label="{escape(title)}"'
    head = f'<svg viewBox="{size[1]}" {look}>'
    return head + text[text.index(">") + 1 :]
