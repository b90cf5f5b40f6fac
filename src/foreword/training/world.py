"""The world of a run: one process here, several in processes.py."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """A run in one process: it has all rows, and there is nobody to sum with or to wait for.

    ``rank`` counts from 0 to ``size``, ``local`` counts the processes on the same machine. Where
    the model is ``sharded`` over them, all run all rows in step, and nothing need be summed.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def device(self, word: str) -> str:
        """Return the device that this process has when the run was given ``word``.

        Raises UserError for a device that processes cannot share.
        """
        return word

    # Sharing out -----------------------------------------------------------------------------

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Return which of the rows with these sizes are this process's, in their order."""
        return list(range(len(sizes)))

    def reduce(self, parameters: Sequence[Tensor]) -> None:
        """Sum the parameters' gradients over all processes."""

    def total(self, *values: float) -> tuple[float, ...]:
        """Return the sums of numbers over all processes."""
        return values

    def summed(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return the sums of numbers over all processes, some of which may have none of them."""
        return tuple(values)

    def least(self, value: int | None) -> int | None:
        """Return the smallest number that any process has; None where none has one."""
        return value

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        return flag

    def same(self, text: str) -> bool:
        """Tell whether all processes hold the same text."""
        return True

    def spread(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters; they are the same where all is well."""

    def wait(self) -> None:
        """Wait until all processes have come here."""

    @contextmanager
    def first_alone(self) -> Iterator[bool]:
        """Let the first process go through while the others wait; yields whether to act.

        What it does there, such as unpacking a model into the cache, is done when they go on.
        """
        yield self.first
        self.wait()

    # Speaking --------------------------------------------------------------------------------

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Drop what any but the first process prints."""
        with ExitStack() as stack:
            if not self.first:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield

    def claim(self) -> bool:
        """Tell whether this process is the one to say why the run ends: the first that asks."""
        return True


ALONE = World()
"""The world of a run in one process."""


def is_one_of_several(environment: Mapping[str, str]) -> bool:
    """Tell whether torchrun or ``accelerate launch`` started this process beside others."""
    return environment.keys() >= {"RANK", "WORLD_SIZE"} and environment["WORLD_SIZE"] != "1"
