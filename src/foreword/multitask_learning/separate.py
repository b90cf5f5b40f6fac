"""Separate prompts for several tasks, trained together in mixed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Trainable


@dataclass(frozen=True)
class Owners:
    """The task of each training row and of each dev row, by number."""

    training: tuple[int, ...]
    dev: tuple[int, ...]


class SeparatePrompts(Trainable):
    """Parameters for each task that share nothing: ``parts.0``, ``parts.1`` ...

    A batch is one pass, with each row under the prompt of its task (:class:`Mixture`). Every part
    keeps the parameters of its task's best dev score.
    """

    def __init__(self, parts: Sequence[Trainable], owners: Owners) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.owners = owners
        self.task_of = {f"parts.{n}.": n for n in range(len(parts))}
        self.rates = {
            f"parts.{n}.{start}": rate
            for n, part in enumerate(parts)
            for start, rate in part.rates.items()
        }

    def forward(self) -> Mixture:
        """Return the tasks' injections, one row a task."""
        return Mixture(tuple(part() for part in self.parts), range(len(self.parts)))

    def training_on(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return the injection of each row's task, as that one is trained on its rows."""

        def made(task: int, own: Sequence[int]) -> Injection | Mixture:
            part = self.parts[task]
            assert isinstance(part, Trainable)
            return part.training_on(own, chance)

        return mix_injections(self.owners.training, rows, made)

    def judged_on(self, rows: Sequence[int]) -> Injection | Mixture:
        """Return the injection of each row's task."""
        return mix_injections(self.owners.dev, rows, lambda task, own: self.parts[task]())


def mix_injections(
    owners: tuple[int, ...],
    rows: Sequence[int],
    make: Callable[[int, Sequence[int]], Injection | Mixture],
) -> Injection | Mixture:
    """Return the injections of the rows' tasks as a mixture, or that of the only task.

    ``owners`` gives the task of every row, and ``rows`` the numbers of the rows in the batch.
    ``make`` takes a task and its rows, numbered among all rows of that task.
    """
    numbers = _numbers(owners)
    parts: list[Injection] = []
    places = [0] * len(rows)
    for task in sorted({owners[row] for row in rows}):
        at = [n for n, row in enumerate(rows) if owners[row] == task]
        made = Mixture.of(make(task, [numbers[rows[n]] for n in at]), len(at))
        for n, part in zip(at, made.rows, strict=True):
            places[n] = len(parts) + part
        parts += made.parts
    return parts[0] if len(parts) == 1 else Mixture(tuple(parts), places)


@lru_cache(maxsize=2)
def _numbers(owners: tuple[int, ...]) -> Sequence[int]:
    """Return the number of every row among those of its task: once for a run, as they are many."""
    first: dict[int, int] = {}
    numbers = []
    for owner in owners:
        numbers.append(first.get(owner, 0))
        first[owner] = numbers[-1] + 1
    return numbers


def check_shared_pass(name: str, injection: Injection) -> None:
    """Raise UserError for a method that changes the model: one pass cannot serve several tasks."""
    if next(injection.changes(), None) is not None:
        raise UserError(
            f"`method={name}`: changes the model itself, so that no pass serves several tasks; "
            "use soft, ptuning, prefix or deep, or foreword train for each task"
        )
