"""What prompts must share to be composed, and the weights that they are given."""

from __future__ import annotations

import math
from collections.abc import Sequence

from foreword.errors import UserError
from foreword.grammar import counted
from foreword.prompt.prompt import Prompt
from foreword.tasks.registry import name_of


def check_together(prompts: Sequence[Prompt], fewest: int = 2) -> None:
    """Raise UserError for too few prompts, and for those of another backbone or kind of task."""
    if len(prompts) < fewest:
        raise UserError(
            f"{counted(len(prompts), 'prompt')} cannot be composed; give {fewest} or more"
        )
    first = prompts[0]
    for number, prompt in enumerate(prompts[1:], 2):
        if prompt.backbone["fingerprint"] != first.backbone["fingerprint"]:
            raise UserError(
                f"prompt {number} was tuned on {prompt.backbone['name']} "
                f"({prompt.backbone['fingerprint'][:19]}), and prompt 1 on "
                f"{first.backbone['name']} ({first.backbone['fingerprint'][:19]}); compose prompts "
                "of one model"
            )
        if name_of(prompt.task) != name_of(first.task):
            raise UserError(
                f"prompt {number} is for task {name_of(prompt.task)}, and prompt 1 for "
                f"{name_of(first.task)}; compose prompts of one kind of task"
            )


def check_weights(weights: Sequence[float], count: int) -> tuple[float, ...]:
    """Return weights that are one a prompt, not negative, and add up to 1; else UserError."""
    shown = " ".join(f"{weight:g}" for weight in weights)
    if len(weights) != count:
        raise UserError(
            f"{counted(len(weights), 'weight')} ({shown}) for {counted(count, 'prompt')}; give "
            "one for each"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise UserError(f"weights {shown}: give numbers that are not negative, with a sum of 1")
    if abs(sum(weights) - 1) > 1e-6:
        raise UserError(
            f"weights {shown} add up to {sum(weights):g}; give weights that add up to 1"
        )
    return tuple(weights)


def equal_weights(count: int) -> tuple[float, ...]:
    """Return the same weight for each."""
    return (1 / count,) * count
