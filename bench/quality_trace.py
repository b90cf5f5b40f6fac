"""A run's curve: the dev score over the seconds that its user waits; scoring stops the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import common_lead
from foreword.data.row import Row
from foreword.engine.lower_layers import LowerLayers
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.tasks.base import Bound

ROWS_AT_ONCE = 256
"""Dev rows whose stored states are brought together at once."""


class Point(NamedTuple):
    """A dev score, the step after which it was taken, and the counted seconds until then."""

    seconds: float
    step: int
    score: float


class Run(Protocol):
    """A system on its way through a task: what its user waits for, and its score.

    ``steps`` and ``per_epoch`` are known once the run has begun. ``over`` tells that the system
    itself stops before its last step.
    """

    steps: int
    per_epoch: int

    @property
    def over(self) -> bool: ...

    def begin(self) -> None:
        """Do all that stands between a loaded model and the first step."""

    def step(self) -> None:
        """Take a training step."""

    def score(self) -> float:
        """Return the dev score; more is better."""

    def close(self) -> None:
        """Let go of what the run holds."""


def room(backbone: Backbone) -> int:
    """Return how many tokens a row may have: the same under every prompt, short or long."""
    return backbone.longest // 2


class Judge:
    """The one dev score of all systems: that of the task, on the same tokens for all of them."""

    def __init__(self, bound: Bound, rows: Sequence[Row]) -> None:
        self.bound = bound
        self.items = [bound.dev_example(row, room(bound.backbone)) for row in rows]
        self.lead = common_lead(item.example for item in self.items)

    def __call__(
        self, backbone: Backbone, injection: Injection, trunk: LowerLayers | None = None
    ) -> float:
        """Return the mean score of the rows; what a trunk holds of them is not run again."""
        if trunk is not None and self.lead[: len(trunk.lead)] != trunk.lead:
            trunk = None  # made for rows that begin otherwise
        total, weight = 0.0, 0
        for start in range(0, len(self.items), ROWS_AT_ONCE):
            part = self.items[start : start + ROWS_AT_ONCE]
            examples = [item.example for item in part]
            given = None if trunk is None else trunk.given(examples)
            found = infer(backbone, injection, examples, tokens=self.bound.tokens, given=given)
            for group, logits in found:
                score, count = self.bound.dev_counts(logits, [part[i] for i in group])
                total, weight = total + score, weight + count
        return total / weight


class _Clock:
    """Adds up the seconds inside ``with``."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def trace(
    run: Run,
    scores: int,
    until: float | None = None,
    hear: Callable[[Point, int], None] = lambda point, steps: None,
) -> list[Point]:
    """Run to the end and return the curve: a point at the start, and ``scores`` an epoch.

    The run stops at the first score of ``until``. ``hear`` is told each point, and the number of
    all steps. Raises UserError for a score that is not finite.
    """
    clock = _Clock()
    with clock:
        run.begin()
    curve: list[Point] = []
    for step in range(run.steps + 1):
        if step:
            with clock:
                run.step()
        done = step * scores // run.per_epoch
        if step and done == (step - 1) * scores // run.per_epoch and step < run.steps:
            continue
        point = Point(clock.seconds, step, run.score())
        if not math.isfinite(point.score):
            raise UserError(f"the dev score is {point.score} after step {step}; lower its rate")
        curve.append(point)
        hear(point, run.steps)
        if run.over or (until is not None and point.score >= until):
            break
    return curve
