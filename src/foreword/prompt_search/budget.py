"""The budget: trials until the time, their number or the settings are used up."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from foreword.display.trials import REPEATED
from foreword.display.trials import settings as in_one_line
from foreword.errors import UserError
from foreword.prompt_search.space import Space
from foreword.prompt_search.trial import Trials, Tried, best_of
from foreword.reporter import Reporter, duration
from foreword.training.interrupt import Interrupted

if TYPE_CHECKING:
    from optuna import Study

HOPELESS = 5
"""Trials that fail, while none succeeds, before a search gives up."""

EXHAUSTED = 20
"""Repeated settings in a row after which all of them count as tried."""


def count_begun(study: Study) -> int:
    """Return how many trials have begun."""
    return sum(each.state.name != "WAITING" for each in study.get_trials(deepcopy=False))


def run_trials(
    study: Study, runner: Trials, space: Space, trials: int | None, report: Reporter
) -> Interrupted | KeyboardInterrupt | None:
    """Run trials until the time, the trials or the settings are used up, or the user stops it."""
    caught = (UserError, MemoryError, torch.OutOfMemoryError)
    repeated = failed = 0
    while trials is None or count_begun(study) < trials:
        left = runner.deadline - time.monotonic()
        if left <= 0 or (runner.fastest is not None and left < runner.fastest):
            break
        before = count_begun(study)
        try:
            study.optimize(runner.run, n_trials=1, catch=caught)
        except (Interrupted, KeyboardInterrupt) as error:
            return error
        mine = [each for each in study.trials if each.number >= before]
        last = next((t for t in reversed(mine) if t.state.is_finished()), None)
        if last is None:
            continue
        tried = Tried.of(last)
        again = bool(tried.reason and tried.reason.startswith(REPEATED))
        repeated = repeated + 1 if again else 0
        if not again:
            report.line(_line(tried, study, runner.deadline))
        failed = failed + 1 if tried.state == "failed" else failed
        if best_of(study) is None and failed >= HOPELESS:
            raise UserError(f"{failed} trials failed and none succeeded: {tried.reason}")
        if repeated >= EXHAUSTED or not space.is_open:
            report.line("all settings of the space were tried")
            break
    return None


def _line(tried: Tried, study: Study, deadline: float) -> str:
    """Say how a trial ended, what the best score is, and the time left."""
    said = f"trial {tried.number}: {tried.method}"
    if tried.settings:
        said += f", {in_one_line(tried.settings)}"
    if tried.state == "complete" and tried.score is not None:
        said += f": {tried.score:.2f}"
    else:
        said += f": {tried.state}, {tried.reason}"
    best = best_of(study)
    if best is not None and best.value is not None:
        said += f"; best {best.value:.2f}"
        said += " (this one)" if best.number == tried.number else f" (trial {best.number})"
    if deadline < math.inf:
        said += f"; {duration(max(0.0, deadline - time.monotonic()))} left"
    return said
