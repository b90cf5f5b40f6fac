"""The probability below which an answer is left blank: a number, or the one that a prompt keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreword.errors import UserError
from foreword.prompt.answerer import Answerer
from foreword.tasks.base import Bound

AUTO = "auto"
"""The probability that was fitted and is kept in the prompt."""


def least_of(tuned: Answerer, given: float | str | None) -> float | None:
    """Return the probability that is asked for, None where none is.

    Raises UserError for what is no probability, for "auto" where the prompt keeps none, and for
    answers that have no probability of one label.
    """
    if given is None:
        return None
    check_one_label(tuned.bound)
    if given == AUTO:
        if (kept := kept_by(tuned)) is None:
            raise UserError(
                "`min_probability=auto`: the prompt keeps no probability; give a number, or fit "
                "one (foreword eval PROMPT --data DEV_ROWS --out PROMPT)"
            )
        return kept
    try:
        least = float(given)
    except (TypeError, ValueError):
        least = -1.0
    if not 0 <= least <= 1:
        shown = given if least < 0 else least
        raise UserError(f"`min_probability={shown}`: give a probability, from 0 to 1, or auto")
    return least


def kept_by(tuned: Answerer) -> float | None:
    """Return the probability that a prompt keeps; None where it keeps none, as an ensemble does."""
    kept = None if hasattr(tuned, "members") else tuned.data.get("min_probability")
    return None if kept is None else float(kept)


def check_one_label(bound: Bound, asked: str = "min_probability") -> None:
    """Raise UserError for a task whose answers are not one label; ``asked`` is a setting."""
    if bound.answer != "label":
        raise UserError(f"`{asked}` is for tasks that give a row one label; leave it out")


def is_unsure(bound: Bound, prediction: Mapping[str, Any], least: float | None) -> bool:
    """Tell whether the probability of an answer is below the ``least`` that is asked for."""
    probability = bound.probability(prediction)
    return least is not None and probability is not None and probability < least
