"""The budget: trials until the time, their number or the settings are used up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from foreword.display.trials import REPEATED
from foreword.display.trials import settings as in_one_line
from foreword.errors import UserError
from foreword.prompt_search.plan import next_trial
from foreword.prompt_search.space import Space
from foreword.prompt_search.trial import Trials
from foreword.prompt_search.tried import Tried, best_of
from foreword.reporter import Reporter, duration
from foreword.training.interrupt import Interrupted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

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
    try:
        _trials(study, runner, space, trials, report)
    except (Interrupted, KeyboardInterrupt) as error:
        return error
    return None


def _trials(
    study: Study, runner: Trials, space: Space, trials: int | None, report: Reporter
) -> None:
    caught = (UserError, MemoryError, torch.OutOfMemoryError)
    repeated = failed = 0
    mine: list[FrozenTrial] = []
    while trials is None or count_begun(study) < trials:
        looks = repeated < EXHAUSTED and (space.is_open or not study.trials)
        pace = runner.pace
        left = pace.left_for_trials()
        epochs = pace.of_trials
        chosen = next_trial(
            study, space, left, pace.seconds, epochs, looks=looks, ends=not pace.again
        )
        if left <= 0 or chosen is None:
            if not looks:
                report.line("all settings of the space were tried")
            return
        study.enqueue_trial(dict(chosen))
        study.optimize(
            runner.run, n_trials=1, catch=caught, callbacks=[lambda _, trial: mine.append(trial)]
        )
        tried = Tried.of(mine.pop())
        again = (tried.reason or "").startswith(REPEATED)
        repeated = repeated + 1 if again else 0
        if not again:
            report.line(_line(tried, study, runner.pace.left()))
        failed += tried.state == "failed"
        if best_of(study) is None and failed >= HOPELESS:
            raise UserError(f"{failed} trials failed and none succeeded: {tried.reason}")


def _line(tried: Tried, study: Study, left: float) -> str:
    """Say how a trial ended, what the best score is, and the time left."""
    said = f"trial {tried.number}: {tried.method}"
    if tried.settings:
        said += f", {in_one_line(tried.settings)}"
    if tried.state == "complete" and tried.score is not None:
        said += f": {tried.score:.2f}" + (f" ({tried.reason})" if tried.reason else "")
    else:
        said += f": {tried.state}, {tried.reason}"
    best = best_of(study)
    if best is not None and best.value is not None:
        said += f"; best {best.value:.2f}"
        said += " (this one)" if best.number == tried.number else f" (trial {best.number})"
    if left < math.inf:
        said += f"; {duration(max(0.0, left))} left"
    return said
