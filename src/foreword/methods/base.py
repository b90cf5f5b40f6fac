"""What every method is: a configuration that builds parameters, which yield an Injection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from foreword.data.row import Row
from foreword.injection import Injection, Mixture
from foreword.tasks.base import Bound


class Trainable(nn.Module, ABC):
    """A method's parameters, in float32.

    ``rates`` maps the beginning of parameters' names to a learning rate other than the method's.
    ``task_of`` maps it to one of several tasks, where parameters belong to one: they are learned
    from its loss, and kept by its dev score.
    ``notes`` are lines to show before the training.
    """

    rates: Mapping[str, float] = {}
    task_of: Mapping[str, int] = {}
    notes: Sequence[str] = ()

    @abstractmethod
    def forward(self) -> Injection | Mixture:
        """Return the injection that the parameters stand for, with its graph.

        Where several tasks have their own injections it is a mixture, with one row per task.
        """

    @cached_property
    def outline(self) -> Injection | Mixture:
        """What the injection consists of: zeros of its tensors' shapes, which take no memory.

        It says before any training which layers are changed, whether there is a head, and how
        many positions are taken.
        """
        with torch.no_grad():
            injection: Injection | Mixture = self()
        return injection.map(lambda tensor: tensor.new_zeros(()).expand(tensor.shape))

    def owner(self, name: str) -> int | None:
        """Return the task that a parameter belongs to, None where it is of all."""
        return next((task for start, task in self.task_of.items() if name.startswith(start)), None)

    @property
    def has_head(self) -> bool:
        """Whether classes are scored by a trained head, in place of label words."""
        return any(part.head is not None for part in Mixture.of(self.outline, 1).parts)

    def training_on(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return the injection of one training step, for rows given by their numbers.

        It is the injection itself, except for methods that hide a part of it from some rows.
        ``chance`` is the step's own source of random numbers, on the CPU.
        """
        return self()  # type: ignore[no-any-return]

    def judged_on(self, rows: Sequence[int]) -> Injection | Mixture:
        """Return the injection of an evaluation, for dev rows given by their numbers."""
        return self()  # type: ignore[no-any-return]


def as_float32(tensor: Tensor) -> Tensor:
    """Copy a tensor to start a parameter from, contiguous and in float32."""
    return tensor.detach().float().clone(memory_format=torch.contiguous_format)


class Method(Protocol):
    """A method's configuration: a frozen dataclass of plain values."""

    @property
    def rate(self) -> float:
        """The learning rate that measurements found good for it."""

    @property
    def shots(self) -> int | None:
        """How many demonstrations its start shows, and the baseline beside it; None for as many
        as the labels ask for (tasks/templates/demonstrations.py)."""

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Trainable:
        """Make the parameters for a task's backbone, started as the configuration says.

        Raises UserError where the backbone cannot carry the method.
        """


@runtime_checkable
class Open(Method, Protocol):
    """A method with settings that the task, its rows and the model decide."""

    def settled(self, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Method:
        """Return the method with these decided; ``alone`` says that nothing is trained beside it.

        The file of a prompt says what they became.
        """


def settle(method: Method, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Method:
    """Return a method of which nothing is left open."""
    return method.settled(task, rows, alone=alone) if isinstance(method, Open) else method


@runtime_checkable
class StartsBeside(Method, Protocol):
    """A method whose start depends on what is trained beside it, which is built before it."""

    starts_beside: Literal[True]

    def build(
        self, task: Bound, rows: Sequence[Row], seed: int, beside: Trainable | None = None
    ) -> Trainable:
        """Make the parameters, as :meth:`Method.build` does; ``beside`` are all other methods'."""
