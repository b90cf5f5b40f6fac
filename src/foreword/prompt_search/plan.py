"""The plan of a search: which trial comes next, so that few minutes suffice.

What is known to be good goes first. Other settings are tried in the shortest run, and the best
third of these go on to the next longer one (asynchronous successive halving, Li et al. 2020,
arXiv:1810.05934; each run is whole, with the whole fall of its learning rate). While there is still
time for it, the best settings of all are given a longer run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from foreword.prompt_search.space import EPOCHS, METHOD, Space
from foreword.prompt_search.trial import best_of, is_repeated

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

HALVING = 3
"""One of so many runs goes on to a longer one."""

KNOWN_SHARE = 3
"""A longer run of the usual settings goes first if it takes at most one in so many parts of the
time."""


def next_trial(
    study: Study,
    space: Space,
    left: float,
    seconds: Callable[[str | None, int], float],
    *,
    looks: bool = True,
) -> Mapping[str, Any] | None:
    """Return the parameters that are fixed of the next trial; None where none fits in the time.

    ``left`` are the seconds that are left, and ``seconds`` says about how many a method takes for
    so many epochs, 0 where that is not known. Without ``looks`` only longer runs are asked for.
    """
    trials = study.get_trials(deepcopy=False)
    if not trials:
        return space.usual()
    every = space.epochs
    tried = {_written(each.params) for each in trials}

    def fits(params: Mapping[str, Any]) -> bool:
        return seconds(method_of(params), params.get(EPOCHS, every[0])) <= left

    def is_new(params: Mapping[str, Any] | None) -> bool:
        return params is not None and _written(params) not in tried and fits(params)

    usual = space.usual()
    if len(every) == 1:
        return {} if looks and seconds(None, every[0]) <= left else None

    def method_of(params: Mapping[str, Any]) -> str:
        return str(params.get(METHOD, next(iter(space.methods))))

    known = {**usual, EPOCHS: every[-1]}
    if is_new(known) and seconds(method_of(known), every[-1]) * KNOWN_SHARE <= left:
        return known
    ended = [t for t in trials if t.state.name == "COMPLETE" and not is_repeated(t)]
    short = {**usual, EPOCHS: every[0]}
    look = seconds(None, every[0])
    best = best_of(study)
    last = None if best is None else _longer(best, every)
    if last is not None and is_new(last):
        needed = seconds(method_of(last), last[EPOCHS])
        if not looks or left < needed + 1.5 * look:
            return last
    for number in range(len(every) - 1, 0, -1):
        below = [t for t in ended if t.params.get(EPOCHS) == every[number - 1]]
        below.sort(key=lambda t: (-(t.value or 0.0), t.number))
        for trial in below[: len(below) // HALVING]:
            longer = _longer(trial, every)
            if longer is not None and is_new(longer):
                return longer
    if not looks or look > left:
        return None
    names = {method_of(t.params) for t in trials}
    for name in space.methods:
        if name not in names:
            return {**space.usual(name), EPOCHS: every[0]}
    return {EPOCHS: short[EPOCHS]}


def _longer(trial: FrozenTrial, every: tuple[int, ...]) -> dict[str, Any] | None:
    """Return a trial's parameters with the next number of epochs, None after the last."""
    more = [epochs for epochs in every if epochs > trial.params.get(EPOCHS, math.inf)]
    return {**trial.params, EPOCHS: more[0]} if more else None


def _written(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True, default=str)
