"""How the states of rows that a prompt fits are spread, and whether another row is like them.

A prompt may keep the mean and the spread of the last hidden states at its rows' answers, number by
number. The distance of a row is the root of the mean square of its state's deviations from that
mean, each over the spread of its number: about 1 for rows such as these. A row is unlike them that
is further off than any of them is from the others.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import first
from foreword.errors import UserError
from foreword.grammar import counted, is_are
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Bound
from foreword.tasks.labels.classifier import Classifier

FEWEST, MOST = 20, 300
"""Rows that it takes to know the spread of their states, and beyond which more add little."""


@dataclass(frozen=True)
class Familiar:
    """Mean and spread of states, (width,) each, and the distance of the furthest of the rows."""

    mean: Tensor
    spread: Tensor
    furthest: float
    rows: int

    @staticmethod
    def of(states: Tensor) -> Familiar:
        """Measure states, (rows, width); each is compared with the mean and spread of the others.

        Raises UserError for fewer than ``FEWEST``.
        """
        count = len(states)
        if count < FEWEST:
            raise UserError(
                f"{counted(count, 'row')} {is_are(count)} too few to know how their states are "
                "spread"
            )
        states = states.double()
        total, squares = states.sum(0), states.square().sum(0)
        means = (total - states) / (count - 1)
        spreads = _spread((squares - states.square()) / (count - 1) - means.square())
        furthest = float(_distances(states, means, spreads).max())
        mean = total / count
        return Familiar(mean, _spread(squares / count - mean.square()), furthest, count)

    def distances(self, states: Tensor) -> Tensor:
        """Return how far states, (rows, width), are off: (rows,)."""
        return _distances(states.double().cpu(), self.mean, self.spread)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON: the numbers of ``mean`` and ``spread`` as float32 in base64."""
        return {
            "mean": _written(self.mean),
            "spread": _written(self.spread),
            "furthest": self.furthest,
            "rows": self.rows,
        }

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Familiar:
        """Return what :meth:`plain` has written."""
        mean, spread = _read(plain["mean"]), _read(plain["spread"])
        return Familiar(mean, spread, plain["furthest"], plain["rows"])


def with_states(prompt: Prompt, rows: Rows) -> Prompt:
    """Return a prompt with how the states of rows that it fits are spread; of many some are drawn.

    Raises UserError for too few rows, and for a task whose answers are no labels.
    """
    given = as_rows(rows)
    some = first(given, MOST, 0) if len(given) > MOST else given
    found = states_of_answers(prompt.bound, some, prompt.injection)
    if found is None:
        raise UserError("states are kept of rows whose answers are labels; leave them out")
    return with_familiar(prompt, Familiar.of(found))


def with_familiar(prompt: Prompt, states: Familiar) -> Prompt:
    """Return a prompt that keeps how states are spread."""
    made = replace(prompt, data={**prompt.data, "states": states.plain()})
    return made.bound_as(prompt.bound)


def states_of_answers(bound: Bound, rows: Sequence[Row], injection: Injection) -> Tensor | None:
    """Return the state at the first target of each row: (rows, width); None for other tasks."""
    if not isinstance(bound, Classifier) or not rows:
        return None
    found: dict[int, Tensor] = {}
    bound.changed(hear=found.__setitem__).predict(rows, injection)
    return torch.stack([found[number].cpu() for number in range(len(rows))])


def _spread(variances: Tensor) -> Tensor:
    """Return the roots of variances; a number that never changes has a spread above 0 too."""
    return variances.clamp_min(1e-8).sqrt()


def _distances(states: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    return ((states - mean) / spread).square().mean(1).sqrt()


def _written(numbers: Tensor) -> str:
    return b64encode(numbers.numpy().astype("<f4").tobytes()).decode()


def _read(written: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(b64decode(written), "<f4").astype(np.float64))
