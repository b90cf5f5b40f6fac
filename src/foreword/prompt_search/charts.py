"""The charts of a search: scores over time, importances, and what a score costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from foreword.display.trials import REPEATED
from foreword.metrics.titles import title
from foreword.prompt_search.tried import Tried
from foreword.report.page.charts import bare, short
from foreword.report.page.figures import COLOURS, drawing


def complete(trials: Sequence[Tried]) -> list[Tried]:
    """Return the trials that came to their end and are no repetitions, as they ended."""
    ended = [
        each
        for each in trials
        if each.state == "complete" and not (each.reason or "").startswith(REPEATED)
    ]
    return sorted(ended, key=lambda each: (each.ended or 0.0, each.number))


def over_time(trials: Sequence[Tried], metric: str) -> Markup:
    """Draw the dev score of each trial when it ended, and the best score so far."""
    shown = complete(trials)
    with drawing("Dev scores over time", 2.8) as made:
        axes = made.axes
        at = [(each.ended or 0.0) / 60 for each in shown]
        scores = [each.score or 0.0 for each in shown]
        best = [max(scores[: n + 1]) for n in range(len(scores))]
        axes.step(at, best, where="post", color=COLOURS["tuned"], label="best so far")
        axes.plot(at, scores, "o", color=COLOURS["before"], markersize=5, label="trials")
        bare(axes, "y")
        axes.set_xlabel("minutes")
        axes.set_ylabel(f"dev {title(metric)}")
        made.figure.legend(loc="outside upper right", ncols=2, handletextpad=0.3)
    return made.svg


def importances(found: Mapping[str, float]) -> Markup:
    """Draw how much of the variance of scores each setting explains."""
    listed = sorted(found.items(), key=lambda each: each[1])
    with drawing("Importance of each setting", 0.7 + 0.3 * len(listed)) as made:
        axes = made.axes
        axes.barh(range(len(listed)), [v for _, v in listed], color=COLOURS["tuned"], height=0.55)
        axes.set_yticks(range(len(listed)), [short(name, 30) for name, _ in listed])
        bare(axes, "x")
        axes.set_xlabel("share of the variance of dev scores (fANOVA)")
    return made.svg


def front(trials: Sequence[Tried], metric: str, cost: str) -> Markup:
    """Draw dev scores against a cost, ``kilobytes`` or ``milliseconds``, with those none beats."""
    shown = [each for each in complete(trials) if getattr(each, cost) is not None]
    best = on_front(shown, cost)
    names = {"kilobytes": "kilobytes of the file", "milliseconds": "milliseconds of a request"}
    with drawing(f"Dev score against {cost}", 2.8) as made:
        axes = made.axes
        for each in shown:
            on = each in best
            colour = COLOURS["tuned" if on else "before"]
            axes.plot([getattr(each, cost)], [each.score or 0.0], "o", color=colour, markersize=6)
        axes.step(
            [getattr(each, cost) for each in best],
            [each.score or 0.0 for each in best],
            where="post",
            color=COLOURS["tuned"],
            linewidth=1.2,
        )
        for each in best:
            axes.annotate(
                f"{each.method} {each.number}",
                (getattr(each, cost), each.score or 0.0),
                (4, -10),
                textcoords="offset points",
                fontsize=8,
                color=COLOURS["ink"],
            )
        if cost == "kilobytes" and shown:
            axes.set_xscale("log")
        bare(axes, "both")
        axes.set_xlabel(names[cost])
        axes.set_ylabel(f"dev {title(metric)}")
    return made.svg


def on_front(trials: Sequence[Tried], cost: str) -> list[Tried]:
    """Return the trials that no other one beats in score at as little cost, the cheapest first."""
    found: list[Tried] = []
    for each in sorted(trials, key=lambda t: (getattr(t, cost), -(t.score or 0.0), t.number)):
        if not found or (each.score or 0.0) > (found[-1].score or 0.0):
            found.append(each)
    return found
