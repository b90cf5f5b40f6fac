"""The learning rate test: its curve as a table with bars, and the rate that it suggests."""

from __future__ import annotations

from collections.abc import Sequence

from rich.bar import Bar as Stroke
from rich.table import Table

from foreword.cli.settings import Settings
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.report import console
from foreword.training.find_rate import Curve, find_rate
from foreword.training.terminal import Terminal
from foreword.training.world import World

LINES = 24
"""Lines of the table at most."""


def run(made: Settings, rows: Sequence[Row], world: World, as_json: bool) -> None:
    """Try rising learning rates on the settings of a run, and print the curve."""
    if world.size > 1:
        raise UserError("--find-lr runs in one process; start it without torchrun")
    if made.plain["replay"] is not None:
        raise UserError("--find-lr tries the new rows alone; leave out --replay")
    found = find_rate(
        made.backbone(),
        made.task,
        made.method,
        rows,
        training=made.training,
        report=Terminal("trying rates"),
    )
    if as_json:
        curve = {"rates": found.rates, "losses": found.losses}
        console.emit({"suggestion": found.suggestion, **curve})
        return
    console.out().print(plot(found))
    console.line(f"steepest at {found.suggestion:.1e}: try --lr {found.suggestion:.1e}")


def plot(curve: Curve) -> Table:
    """Draw the smoothed loss as bars, a line a rate, the suggested one marked."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("rate", justify="right")
    made.add_column("loss", justify="right")
    made.add_column("", width=50)
    least = min(curve.losses)
    most = max(curve.losses[0], least * 1.5)
    step = max(1, -(-len(curve.rates) // LINES))
    shown = {*range(0, len(curve.rates), step), curve.rates.index(curve.suggestion)}
    for place in sorted(shown):
        rate, loss = curve.rates[place], curve.losses[place]
        mark = " <" if rate == curve.suggestion else ""
        width = min(loss, most) - 0.8 * least
        made.add_row(f"{rate:.1e}", f"{loss:.3f}{mark}", Stroke(most - 0.8 * least, 0, width))
    return made
