"""The table of what a search does: the trials that run, here and elsewhere, and the best one."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from foreword.display.trials import settings as in_one_line
from foreword.prompt_search.tried import SETTINGS, best_of
from foreword.reporter import Reporter, duration

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

APART = 1.0
"""Seconds between two looks at the study."""

HEADER = ("trial", "method", "settings", "dev", "since")


class Live:
    """Shows a study's running trials, with the last dev score of each, and the best one so far."""

    def __init__(self, study: Study, report: Reporter) -> None:
        self.study, self.report = study, report
        self.looked = -APART

    def show(self) -> None:
        """Show the table anew, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self.looked < APART:
            return
        self.looked = now
        every = self.study.get_trials(deepcopy=False)
        rows = [_running(each) for each in every if each.state.name == "RUNNING"]
        if (best := best_of(self.study)) is not None and best.value is not None:
            rows.append((f"best: {best.number}", *_what(best), f"{best.value:.2f}", ""))
        self.report.table(HEADER, rows)


def _running(trial: FrozenTrial) -> tuple[str, ...]:
    reached = trial.intermediate_values
    dev = f"{reached[max(reached)]:.2f}" if reached else ""
    began = trial.datetime_start
    since = "" if began is None else duration((datetime.now() - began).total_seconds())
    return str(trial.number), *_what(trial), dev, since


def _what(trial: FrozenTrial) -> tuple[str, str]:
    settings = dict(trial.user_attrs.get(SETTINGS, {}))
    return str(settings.pop("method", "")), in_one_line(settings)
