"""The learning rate test: its curve as a table with bars, and the rate that it suggests."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.cli.settings import Settings
from foreword.cli.terminal import CommandTerminal
from foreword.data.row import Row
from foreword.display import console
from foreword.display.rates import learning_rates
from foreword.errors import UserError
from foreword.training.find_rate import find_rate
from foreword.training.world import World


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
        report=CommandTerminal("trying rates"),
    )
    if as_json:
        curve = {"rates": found.rates, "losses": found.losses}
        console.emit({"suggestion": found.suggestion, **curve})
        return
    console.out().print(learning_rates(found.rates, found.losses, found.suggestion))
    console.line(f"steepest at {found.suggestion:.1e}: try --lr {found.suggestion:.1e}")
