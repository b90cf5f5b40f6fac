"""Trials that have begun, as the study keeps them, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from foreword.display.trials import REPEATED
from foreword.prompt_search.chance import is_higher
from foreword.prompt_search.space import EPOCHS

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SETTINGS, SECONDS, REASON, METRIC = "settings", "seconds", "reason", "metric"
KILOBYTES, MILLISECONDS = "kilobytes", "milliseconds"
USUAL, VALUES, LOSSES = "usual", "values", "losses"
"""Attributes of a trial in the study; ``USUAL`` is of those with the usual settings, ``VALUES`` is
what each dev row adds to the score, and ``LOSSES`` what it lost."""

TIME_UP = "the time was up"
"""The reason of a trial that the time ended."""

STOPPED = "the search was stopped"
"""The reason of a trial that Ctrl-C ended."""


@dataclass(frozen=True)
class Tried:
    """A trial that has ended, or runs elsewhere.

    ``state`` is complete, pruned, failed or running; ``reason`` says why it was pruned or failed.
    ``score`` is the dev score, of a pruned trial the last one that it reached, None without any.
    ``ended`` are the seconds from the beginning of the study. ``kilobytes`` are those of the
    prompt's numbers, ``milliseconds`` the median of a request.
    """

    number: int
    method: str
    settings: Mapping[str, Any]
    state: str
    score: float | None
    seconds: float | None
    reason: str | None
    ended: float | None = None
    kilobytes: float | None = None
    milliseconds: float | None = None

    @staticmethod
    def of(trial: FrozenTrial, began: datetime | None = None) -> Tried:
        """Return a trial as the study keeps it, which ``began`` then."""
        about = dict(trial.user_attrs)
        settings = dict(about.get(SETTINGS, {}))
        reached = trial.intermediate_values
        score = trial.value if trial.value is not None else None
        if score is None and reached:
            score = reached[max(reached)]
        state, end = trial.state.name.lower(), trial.datetime_complete
        return Tried(
            number=trial.number,
            method=settings.pop("method", ""),
            settings=settings,
            state="failed" if state == "fail" else state,
            score=score,
            seconds=about.get(SECONDS),
            reason=about.get(REASON) or ("its process ended early" if state == "fail" else None),
            ended=None if began is None or end is None else (end - began).total_seconds(),
            kilobytes=about.get(KILOBYTES),
            milliseconds=about.get(MILLISECONDS),
        )


def tried(study: Study) -> list[Tried]:
    """Return the trials of a study that have begun."""
    begun = [each for each in study.trials if each.state.name != "WAITING"]
    began = min((each.datetime_start for each in begun if each.datetime_start), default=None)
    return [Tried.of(each, began) for each in begun]


def earlier(study: Study, number: int, settings: Mapping[str, Any]) -> FrozenTrial | None:
    """Return the trial with these settings that has ended by itself, None without one."""
    for each in study.get_trials(deepcopy=False):
        ended = each.state.name in ("COMPLETE", "PRUNED") and each.number != number
        stopped = each.user_attrs.get(REASON) == TIME_UP
        if ended and not stopped and each.user_attrs.get(SETTINGS) == settings:
            return each
    return None


def was_stopped(trial: FrozenTrial) -> bool:
    """Whether a trial ended with its process, or by Ctrl-C, so that nothing is known of it."""
    return trial.state.name == "FAIL" and trial.user_attrs.get(REASON, STOPPED) == STOPPED


def was_cut(trial: FrozenTrial) -> bool:
    """Whether the time ended a trial before it had learned anything."""
    return trial.state.name == "PRUNED" and trial.user_attrs.get(REASON) == TIME_UP


def is_repeated(trial: FrozenTrial) -> bool:
    """Whether a trial has only taken over the outcome of an earlier one."""
    return str(trial.user_attrs.get(REASON, "")).startswith(REPEATED)


def best_of(study: Study) -> FrozenTrial | None:
    """Return the best of the trials that are complete, None without any (:func:`choose`)."""
    return choose(t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE")


def choose(ended: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """Return the best of complete trials.

    The usual settings are good without any dev score, in their longest run most of all. Other
    trials take its place if they score no lower, and are better beyond chance than the usual
    settings after as many epochs. Of equal scores that of more epochs is taken, then that of the
    lower loss, then the earlier one.
    """
    every = [each for each in ended if not is_repeated(each)]
    usual = sorted((t for t in every if t.user_attrs.get(USUAL)), key=_length)
    if usual:
        known = usual[-1]
        beside = {epochs_of(each): each for each in usual}
        others = [t for t in every if t not in usual]
        better = [t for t in usual if _stands_out(t, known)]
        better += [t for t in others if _stands_out(t, beside.get(epochs_of(t), known))]
        every = [known, *better]
    return max(every, key=_rank, default=None)


def epochs_of(trial: FrozenTrial) -> int:
    """Return the epochs of a trial."""
    return int(trial.user_attrs.get(SETTINGS, {}).get(EPOCHS, 0))


def _length(trial: FrozenTrial) -> tuple[bool, int, int]:
    """Order by whether a trial came to its end, its epochs, and the earlier first."""
    return trial.user_attrs.get(REASON) != TIME_UP, epochs_of(trial), -trial.number


def _rank(trial: FrozenTrial) -> tuple[float, int, float, int]:
    lost = sum(trial.user_attrs.get(LOSSES, ()))
    return trial.value or 0.0, epochs_of(trial), -lost, -trial.number


def _stands_out(trial: FrozenTrial, known: FrozenTrial) -> bool:
    """Whether a trial is better than another one beyond chance.

    Either by what their rows add to the score; or it scores no lower, and by the loss of their
    rows, which says more: a few rows seldom tell two accuracies apart. Where what they add is not
    known, whether it scores higher at all.
    """
    (first, lost), (second, before) = (
        (each.user_attrs.get(VALUES), each.user_attrs.get(LOSSES)) for each in (trial, known)
    )
    above = (trial.value or 0.0) - (known.value or 0.0)
    if not first or not second or len(first) != len(second):
        return above > 0
    if is_higher(first, second):
        return True
    return bool(above >= 0 and lost and before and is_higher(before, lost))
