"""Pictures: the curves of a run, and the scores of a comparison against size, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.display.tables import short
from foreword.errors import UserError
from foreword.files import file_to_write, write_whole
from foreword.metrics.titles import title
from foreword.training.log import Curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
"""The kinds of pictures, by the endings of their files."""

SMOOTH = 40
"""Steps from which on the loss is smoothed too, by a running mean over a twentieth of them."""


def check_picture(path: Path) -> None:
    """Raise UserError for what is no file of a picture, and where matplotlib is missing."""
    file_to_write(path)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: a picture is a file that ends in {', '.join(ENDINGS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("a picture needs matplotlib: pip install 'foreword[plot]'") from None


def draw_curves(curves: Curves, name: str, path: Path) -> Path:
    """Draw the loss and the dev scores of a run over its steps."""
    figure = _figure(path, 7, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps, losses = curves.steps, curves.losses
    smooth = len(steps) >= SMOOTH
    upper.plot(steps, losses, color="C0", alpha=0.3 if smooth else 1, linewidth=1)
    if smooth:
        size = max(2, len(steps) // 20)
        means = [
            sum(losses[max(0, n - size + 1) : n + 1]) / min(n + 1, size) for n in range(len(losses))
        ]
        upper.plot(steps, means, color="C0")
    upper.set_ylabel("loss")
    upper.set_title(name, parse_math=False)
    for metric, points in curves.scores.items():
        at, values = zip(*points, strict=True)
        mark = {"marker": "o", "markersize": 4} if len(points) > 1 else {"marker": "D"}
        lower.plot(at, values, label=title(metric), linestyle="-", **mark)
    lower.set_ylabel("dev score")
    lower.set_xlabel("step")
    lower.legend()
    return _write(figure, path)


def draw_front(found: Sequence[Mapping[str, Any]], headline: str, path: Path) -> Path:
    """Draw scores with their intervals over the sizes of the prompts' files.

    The entries that no other one beats in one of the two and equals in the other are circled,
    joined by a line, and named.
    """
    figure = _figure(path, 7, 4.5)
    axes = figure.subplots()
    ended = [each for each in found if each["score"] is not None]
    least = min((each["bytes"] for each in ended if each["bytes"]), default=1)
    for place, method in enumerate(dict.fromkeys(each["method"] for each in ended)):
        own = [each for each in ended if each["method"] == method]
        sizes, scores = [each["bytes"] for each in own], [each["score"] for each in own]
        spans = [
            [max(0, each["score"] - each["interval"][0]) for each in own],
            [max(0, each["interval"][1] - each["score"]) for each in own],
        ]
        style: Any = {"marker": "o", "linestyle": "none", "color": f"C{place % 10}"}
        axes.errorbar(sizes, scores, yerr=spans, elinewidth=0.8, label=method, **style)
    best = front(ended)
    line: Any = {"color": "black", "linewidth": 1, "linestyle": "--", "zorder": 0}
    line |= {"marker": "o", "markersize": 11, "fillstyle": "none"}
    axes.plot([e["bytes"] for e in best], [e["score"] for e in best], label="best by size", **line)
    text: Any = {"textcoords": "offset points", "fontsize": 8, "parse_math": False}
    for each in best:
        settings = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in each["varied"].items())
        where = (each["bytes"], each["score"])
        name = settings or each["method"]
        axes.annotate(name, where, (7, -11), **text)
    axes.set_xscale("symlog", linthresh=least)
    axes.xaxis.set_major_formatter(lambda size, _: short(size, 1000, (" B", " kB", " MB", " GB")))
    axes.set_xlabel("size of the prompt's file")
    axes.set_ylabel(title(headline))
    axes.legend(fontsize=8)
    return _write(figure, path)


def front(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the Pareto front of small size and high score, by size; of equals the first."""
    best: list[Mapping[str, Any]] = []
    ended = (each for each in found if each["score"] is not None)
    for each in sorted(ended, key=lambda entry: (entry["bytes"], -entry["score"])):
        if not best or each["score"] > best[-1]["score"]:
            best.append(each)
    return best


def _figure(path: Path, width: float, height: float) -> Figure:
    check_picture(path)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _write(figure: Figure, path: Path) -> Path:
    import matplotlib

    made, kind = io.BytesIO(), path.suffix[1:].lower()
    dates: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "foreword"}):  # the same bytes each time
        figure.savefig(made, format=kind, dpi=150, metadata=dates.get(kind))
    return write_whole(path, made.getvalue())
