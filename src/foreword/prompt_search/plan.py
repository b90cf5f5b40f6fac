"""The plan of a search: which trial comes next, so that few minutes suffice.

All settings are tried in the shortest run first, those that are known to be good before others. The
best third of these go on to the next longer one (asynchronous successive halving, Li et al. 2020,
arXiv:1810.05934; each run is whole, with the whole fall of its learning rate). While there is still
time for it, the best settings of all are given the longest run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from foreword.prompt_search.space import EPOCHS, METHOD, Space
from foreword.prompt_search.tried import best_of, is_repeated, was_cut, was_stopped

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

HALVING = 3
"""One of so many runs goes on to a longer one."""

KNOWN_SHARE = 3
"""A longer run of the usual settings goes first if it takes at most one in so many parts of the
time."""

SPARE = 1.5
"""How many of the shortest runs must fit beside the last one, for another look."""

STOPS = 3
"""How often a trial is stopped, as with its process, before it is left."""


def next_trial(
    study: Study,
    space: Space,
    left: float,
    seconds: Callable[[str | None, int], float],
    every: tuple[int, ...],
    *,
    looks: bool = True,
    ends: bool = True,
) -> Mapping[str, Any] | None:
    """Return the parameters that are fixed of the next trial; None where none fits in the time.

    ``left`` are the seconds that are left, and ``seconds`` says about how many a method takes for
    so many epochs, 0 where that is not known. ``every`` are the epochs that trials have, the fewest
    first. Without ``looks`` only longer runs are asked for, and without ``ends`` the best settings
    are given no last run here, since they are tuned again later.
    """
    every_trial = study.get_trials(deepcopy=False)
    trials = [each for each in every_trial if not (was_stopped(each) or was_cut(each))]
    stopped = Counter(_written(each.params) for each in every_trial if was_stopped(each))
    left_out = {written for written, times in stopped.items() if times >= STOPS}
    tried = {_written(each.params) for each in trials} | left_out
    only = next(iter(space.methods))
    shortest = {EPOCHS: every[0]} if len(space.epochs) > 1 else {}

    def lasts(params: Mapping[str, Any]) -> float:
        return seconds(params.get(METHOD, only), params.get(EPOCHS, every[0]))

    def is_open(params: Mapping[str, Any]) -> bool:
        return _written(params) not in tried and lasts(params) <= left

    for params in map(json.loads, stopped):
        if is_open(params):
            return dict(params)  # it goes on from its checkpoint, where that is here
    if not tried:
        return space.usual() | shortest
    best, last = best_of(study), None
    if best is not None and ends:
        last = next((each for each in _longer(best, reversed(every)) if is_open(each)), None)
    short = seconds(None, every[0])
    fits = looks and left >= (lasts(last) + SPARE * short if last else short)
    if fits:
        for first in space.first_looks():
            if is_open(first | shortest):
                return first | shortest
    known = space.usual() | {EPOCHS: every[-1]}
    if len(every) > 1 and is_open(known) and lasts(known) * KNOWN_SHARE <= left:
        return known
    if last and not fits:
        return last
    for trial in _promising(study, every):
        for longer in _longer(trial, every)[:1]:
            if is_open(longer):
                return longer
    return shortest if fits else None


def _promising(study: Study, every: tuple[int, ...]) -> Iterator[FrozenTrial]:
    """Yield the best third of the trials of each number of epochs but the most, the long first."""
    trials = study.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state.name == "COMPLETE" and not is_repeated(t)]
    for epochs in reversed(every[:-1]):
        own = [trial for trial in ended if trial.params.get(EPOCHS) == epochs]
        own.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
        yield from own[: len(own) // HALVING]


def _longer(trial: FrozenTrial, every: Iterable[int]) -> list[dict[str, Any]]:
    """Return a trial's parameters with each larger number of epochs."""
    own = trial.params.get(EPOCHS, math.inf)
    return [{**trial.params, EPOCHS: epochs} for epochs in every if epochs > own]


def _written(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True, default=str)
