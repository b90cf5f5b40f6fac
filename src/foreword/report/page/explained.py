"""The charts of what a prompt has learned."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from foreword.explanation.explanation import (
    Importance,
    LayerAttention,
    LayerProbabilities,
    Measured,
)
from foreword.metrics.titles import title
from foreword.report.page.charts import bare, short
from foreword.report.page.figures import COLOURS, drawing

MOST = 5
"""Labels whose probabilities are drawn: those that are likeliest at the end."""


def without_each(found: Importance, pieces: Sequence[Measured], what: str) -> Markup:
    """Draw the score without each piece, between those of the whole prompt and of none."""
    with drawing(f"Score without each {what}", 2.7) as made:
        axes = made.axes
        axes.axhline(found.prompt.score, color=COLOURS["tuned"], linewidth=1.4)
        axes.axhline(found.untouched.score, color=COLOURS["before"], linewidth=1.2, linestyle="--")
        places, values = range(len(pieces)), [each.score for each in pieces]
        width = 1.6 if len(pieces) > 24 else 2.6
        axes.vlines(
            places, values, found.prompt.score, color=COLOURS["bad"], linewidth=width, alpha=0.6
        )
        axes.plot(
            places, values, "o", color=COLOURS["bad"], markersize=3 if len(pieces) > 24 else 5
        )
        step = max(1, -(-len(pieces) // 8))
        axes.set_xticks(list(places)[::step], [_number(each.name) for each in pieces][::step])
        bare(axes, "y")
        axes.set_xlabel(what)
        axes.set_ylabel(title(found.metric))
    return made.svg


def attention(layers: Sequence[LayerAttention]) -> Markup:
    """Draw the share of attention on the prompt, by layer and head."""
    heads = max(len(each.heads) for each in layers)
    with drawing("Share of attention on the prompt", 0.9 + 0.105 * len(layers)) as made:
        from matplotlib.patches import Rectangle

        axes = made.axes
        for y, layer in enumerate(layers):
            for x, share in enumerate(layer.heads):
                box = Rectangle((x - 0.46, y - 0.46), 0.92, 0.92)
                box.set(color=COLOURS["tuned"], alpha=0.04 + 0.96 * min(1.0, share), linewidth=0)
                axes.add_patch(box)
        axes.set_xlim(-0.5, heads - 0.5)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        rows = range(0, len(layers), max(1, -(-len(layers) // 10)))
        axes.set_yticks(rows, [_number(layers[n].name) for n in rows])
        few = max(1, -(-heads // 12))
        axes.set_xticks(range(0, heads, few), [str(n) for n in range(0, heads, few)])
        bare(axes, "")
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
    return made.svg


def lens(found: LayerProbabilities, which: str) -> Markup:
    """Draw the labels' probabilities as each layer would decode them."""
    table = found.prompt if which == "prompt" else found.untouched
    said = {"prompt": "with the prompt", "untouched": "untouched model"}[which]
    last = found.prompt[-1]
    order = sorted(range(len(found.labels)), key=lambda n: -last[n])[:MOST]
    with drawing(f"Labels by layer, {said}", 2.7) as made:
        axes = made.axes
        for place, n in enumerate(order):
            colour = COLOURS[("tuned", "bad", "good", "other", "before")[place]]
            values = [100 * row[n] for row in table]
            style = "-" if place < 3 else "--"
            name = short(found.labels[n], 16)
            name = f" {name}" if name.startswith("_") else name  # or the legend leaves it out
            axes.plot(range(len(values)), values, style, color=colour, label=name)
        axes.set_ylim(-3, 103)
        step = max(1, -(-len(found.names) // 6))
        places = range(0, len(found.names), step)
        axes.set_xticks(places, [short(_number(found.names[n]), 9) for n in places])
        axes.set_xlabel("layer")
        bare(axes, "y")
        axes.set_title(said, fontsize=9.5, color=COLOURS["ink"])
        axes.set_ylabel("probability, %")
        made.figure.legend(loc="outside lower center", ncols=3)
    return made.svg


def _number(name: str) -> str:
    """Return the end of a name, such as 3 of "layer 3"."""
    return name.split()[-1] if name.split() else name
