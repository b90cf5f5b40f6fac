"""Finding a learning rate: steps at ever higher rates, until the loss turns up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from foreword.backbone.backbone import Backbone
from foreword.backbone.shared import backbone_of
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.methods.base import Method
from foreword.reporter import Reporter, Reporters
from foreword.tasks.base import Task
from foreword.terminal import usual_reporter
from foreword.training.configure import configure
from foreword.training.prepare import prepare
from foreword.training.settings import Training
from foreword.training.step import NotFiniteError

DIVERGED = 4.0
"""Times its lowest value that the smoothed loss may reach before the test is over."""

SMOOTHING = 0.9
"""What the running mean of the loss keeps of its past at each step."""


@dataclass(frozen=True)
class Curve:
    """The smoothed loss by learning rate, and the rate where it falls most steeply."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_rate(
    backbone: Backbone | str | Path,
    task: Task | str,
    method: Method | str,
    train: Rows,
    *,
    training: Training | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    report: Reporter | None = None,
) -> Curve:
    """Train from a fresh start at rates that rise from ``low`` to ``high``, and suggest one.

    The learning rate range test (Smith 2017, arXiv:1506.01186): the rate is multiplied by the
    same factor after every step. The loss of a step is smoothed by a running mean; the rate at
    which that falls most steeply, by the logarithm of the rate, before it is lowest is suggested.
    All parameters have the same rate. It ends early once the loss has multiplied. Nothing is kept
    of what was trained.

    Raises UserError for what ``tune`` refuses, a range without a width, and a loss that falls
    nowhere.
    """
    report = usual_reporter() if report is None else report
    if not (0 < low < high < math.inf and steps >= 10):
        raise UserError("give rates above 0, the lower one first, and at least 10 steps")
    backbone = backbone_of(backbone)
    task, method, asked = configure(task, method, training, {})
    rows = as_rows(train, fields=task.pair)
    # One row is scored after each epoch, since a run scores some; nothing is read off it.
    fixed = replace(asked, rate=1.0, patience=None, warmup=0.0, compile="off")
    _, _, run = prepare(backbone, task, method, rows, rows[:1], fixed, report)
    run.steps = steps
    run.pace = lambda step: low * (high / low) ** (step / (steps - 1))
    test = _Test()
    hearing = Reporters([report, test])
    try:
        hearing.start({}, steps, 0)
        run.go(hearing)
    except (_Over, NotFiniteError):
        pass
    finally:
        hearing.done()
    return Curve(tuple(test.rates), tuple(test.losses), _steepest(test.rates, test.losses))


class _Over(Exception):  # noqa: N818 (it is no error)
    """The loss has multiplied."""


class _Test(Reporter):
    """Hears the loss of each step, and smooths it."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.rates: list[float] = []
        self.losses: list[float] = []

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Keep the rate and the smoothed loss of a step."""
        self.mean = SMOOTHING * self.mean + (1 - SMOOTHING) * values["loss"]
        self.rates.append(values["rate"])
        self.losses.append(self.mean / (1 - SMOOTHING ** len(self.rates)))
        if self.losses[-1] > DIVERGED * min(self.losses):
            raise _Over


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss falls most, by the rate's logarithm, before its lowest."""
    lowest = losses.index(min(losses)) if losses else 0
    falls = [after - before for before, after in pairwise(losses[: lowest + 1])]
    if not falls or min(falls) >= 0:
        raise UserError(
            "the loss falls at no learning rate that was tried; look at the rows, or take the "
            "method's own rate"
        )
    return rates[falls.index(min(falls)) + 1]
