"""The charts of a report, one for each kind of value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from foreword.metrics.titles import title
from foreword.report.changes import Calibration, Confusion, LabelChange, LengthGroup
from foreword.report.page.figures import COLOURS, drawing
from foreword.report.quality import Quality
from foreword.report.robustness import Robustness
from foreword.training.log import Curves

MOST_LABELS = 16
"""Labels that a chart shows at most."""

KINDS = {"prompt": "tuned", "training": "tuned", "untouched": "before"}
"""The colours of systems; all others have one."""


def short(text: str, most: int = 22) -> str:
    """Cut a text that is too long for a chart, and put it on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def scores(quality: Quality) -> Markup:
    """Draw each system's score with its interval, one below the other."""
    systems = quality.systems[::-1]
    with drawing("Scores with 95% intervals", 0.55 + 0.34 * len(systems)) as made:
        axes = made.axes
        for place, each in enumerate(systems):
            colour = COLOURS[KINDS.get(each.kind, "other")]
            axes.plot(
                [each.low, each.high], [place, place], color=colour, linewidth=2.5, alpha=0.45
            )
            hollow = each.kind == "training"
            axes.plot(
                [each.score],
                [place],
                marker="o",
                markersize=7,
                color=colour,
                markerfacecolor=COLOURS["paper"] if hollow else colour,
            )
            axes.annotate(
                f"{each.score:.1f}" if quality.percent else f"{each.score:.2f}",
                (each.score, place),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=COLOURS["ink"],
            )
        axes.set_yticks(range(len(systems)), [short(each.name, 30) for each in systems])
        axes.set_ylim(-0.5, len(systems) - 0.3)
        bare(axes, "x")
        axes.set_xlabel(title(quality.metric))
    return made.svg


def label_gains(labels: Sequence[LabelChange]) -> Markup:
    """Draw the share of right answers of each label, before and after."""
    shown = sorted(labels, key=lambda each: each.after - each.before)
    if len(shown) > MOST_LABELS:
        half = MOST_LABELS // 2
        shown = [*shown[:half], *shown[-half:]]
    with drawing("Right answers by label, before and after", 0.8 + 0.27 * len(shown)) as made:
        axes = made.axes
        for place, each in enumerate(shown):
            better = each.after >= each.before
            colour = COLOURS["good" if better else "bad"]
            axes.plot(
                [each.before, each.after], [place, place], color=colour, linewidth=2.5, alpha=0.6
            )
        places = range(len(shown))
        axes.plot(
            [e.before for e in shown], places, "o", color=COLOURS["before"], label="untouched"
        )
        axes.plot(
            [e.after for e in shown], places, "o", color=COLOURS["tuned"], label="with the prompt"
        )
        axes.set_yticks(places, [short(each.label) for each in shown])
        axes.set_xlim(-4, 104)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        bare(axes, "x")
        axes.set_xlabel("right answers of 100")
        made.figure.legend(loc="outside upper right", ncols=2, handletextpad=0.2)
    return made.svg


def confusion(found: Confusion, which: str) -> Markup:
    """Draw what is taken for what: ``which`` is "before" or "after"."""
    matrix = found.before if which == "before" else found.after
    labels, count = found.labels, len(found.labels)
    size = max(2.3, min(4.6, 1.3 + 0.33 * count))
    names = {"before": "untouched model", "after": "with the prompt"}
    with drawing(f"Confusion matrix, {names[which]}", size, max(3.2, size)) as made:
        axes = made.axes
        colour = COLOURS["tuned" if which == "after" else "before"]
        most = max(1, *(max(row) for row in matrix))
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if not value:
                    continue
                share = value / max(1, sum(row))
                axes.add_patch(_square(j, i, colour, 0.12 + 0.7 * share))
                text = {"ha": "center", "va": "center", "fontsize": 8 if most < 1000 else 6.5}
                axes.text(j, i, str(value), color=COLOURS["ink"], **text)  # type: ignore[arg-type]
        names_shown = [short(label, 14) for label in labels]
        axes.set_xticks(range(count), names_shown, rotation=35, ha="right")
        axes.set_yticks(range(count), names_shown)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.tick_params(length=0, labelcolor=COLOURS["ink"])
        axes.set_title(names[which], fontsize=9.5, color=COLOURS["ink"])
        axes.set_xlabel("answer")
        axes.set_ylabel("right label")
        for spine in axes.spines.values():
            spine.set_visible(False)
    return made.svg


def _square(x: float, y: float, colour: str, strength: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, color=colour, alpha=strength, linewidth=0)


def reliability(found: Calibration) -> Markup:
    """Draw how often answers are right against their probabilities."""
    with drawing("How often answers are right, by their probability", 3.0) as made:
        axes = made.axes
        axes.plot([0, 100], [0, 100], color=COLOURS["line"], linestyle="--", linewidth=1)
        for kind, bins, name in (
            ("before", found.before, "untouched"),
            ("tuned", found.after, "with the prompt"),
        ):
            most = max((each.rows for each in bins), default=1)
            x, y = [100 * e.probability for e in bins], [100 * e.right for e in bins]
            axes.plot(x, y, color=COLOURS[kind], linewidth=1.4, alpha=0.7)
            sizes = [14 + 70 * each.rows / most for each in bins]
            axes.scatter(x, y, s=sizes, color=COLOURS[kind], label=name, linewidths=0)
        axes.set_xlim(-2, 103)
        axes.set_ylim(-4, 104)
        bare(axes, "both")
        axes.set_xlabel("probability of the answer, %")
        axes.set_ylabel("right answers of 100")
        made.figure.legend(loc="outside upper right", ncols=2, handletextpad=0.2)
    return made.svg


def lengths(groups: Sequence[LengthGroup], by_row: str) -> Markup:
    """Draw the mean score of rows over their length."""
    with drawing("Score by length of the input", 2.8) as made:
        axes = made.axes
        for shift, kind, name in (
            (-0.08, "before", "untouched"),
            (0.08, "tuned", "with the prompt"),
        ):
            own = [each.before if kind == "before" else each.after for each in groups]
            x = [place + shift for place in range(len(groups))]
            axes.plot(
                x, [e.value for e in own], "o-", color=COLOURS[kind], label=name, linewidth=1.4
            )
            for at, each in zip(x, own, strict=True):
                axes.plot(
                    [at, at], [each.low, each.high], color=COLOURS[kind], alpha=0.45, linewidth=2.5
                )
        named = [f"{g.least}-{g.most}" if g.least < g.most else str(g.most) for g in groups]
        axes.set_xticks(range(len(groups)), named)
        bare(axes, "y")
        axes.set_xlabel("tokens of the input")
        axes.set_ylabel(by_row)
        made.figure.legend(loc="outside upper right", ncols=2, handletextpad=0.2)
    return made.svg


def spread(before: Sequence[float], after: Sequence[float], by_row: str) -> Markup:
    """Draw how the scores of rows are spread."""
    with drawing("How the scores of rows are spread", 2.8) as made:
        axes = made.axes
        low, high = min(*before, *after), max(*before, *after)
        span = (low, high if high > low else low + 1)
        for kind, values, name in (
            ("before", before, "untouched"),
            ("tuned", after, "with the prompt"),
        ):
            how = {"bins": 12, "range": span, "alpha": 0.5, "label": name}
            axes.hist(values, color=COLOURS[kind], **how)  # type: ignore[arg-type]
        bare(axes, "y")
        axes.set_xlabel(by_row)
        axes.set_ylabel("rows")
        made.figure.legend(loc="outside upper right", ncols=2)
    return made.svg


def robustness(found: Robustness) -> Markup:
    """Draw the score of rows said otherwise beside that of the rows as they are."""
    with drawing("Scores of rows said otherwise", 0.7 + 0.34 * len(found.variants)) as made:
        axes = made.axes
        axes.axvspan(found.low, found.high, color=COLOURS["tuned"], alpha=0.12, linewidth=0)
        axes.axvline(found.score, color=COLOURS["tuned"], linewidth=1.4)
        for place, each in enumerate(found.variants[::-1]):
            colour = COLOURS["bad" if each.high < found.score else "other"]
            axes.plot(
                [each.low, each.high], [place, place], color=colour, linewidth=2.5, alpha=0.45
            )
            axes.plot([each.score], [place], "o", color=colour, markersize=6)
        names = [short(each.name, 28) for each in found.variants[::-1]]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        bare(axes, "x")
        axes.set_xlabel(f"{title(found.metric)}; the line: the rows as they are")
    return made.svg


def curves(found: Curves) -> Markup:
    """Draw the loss of each step."""
    with drawing("Loss of each step", 2.5) as made:
        axes, steps, losses = made.axes, found.steps, found.losses
        axes.plot(steps, losses, color=COLOURS["before"], linewidth=0.9, alpha=0.6)
        size = max(2, len(steps) // 15)
        parts = [losses[max(0, n - size + 1) : n + 1] for n in range(len(losses))]
        axes.plot(steps, [sum(part) / len(part) for part in parts], color=COLOURS["tuned"])
        bare(axes, "y")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
    return made.svg


def dev_curves(found: Curves) -> Markup:
    """Draw the dev scores over the steps."""
    with drawing("Dev score over the steps", 2.5) as made:
        axes = made.axes
        for colour, (metric, points) in zip(
            ("tuned", "other", "before"), found.scores.items(), strict=False
        ):
            at, values = zip(*points, strict=True)
            axes.plot(at, values, "o-", color=COLOURS[colour], label=title(metric), markersize=4)
        bare(axes, "y")
        axes.set_xlabel("step")
        axes.set_ylabel("dev score")
        axes.legend()
    return made.svg


def bare(axes: Any, grid: str) -> None:
    """Leave lines out but for a light grid."""
    if grid:
        axes.grid(axis=grid)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
