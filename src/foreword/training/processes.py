"""Several processes of one run: each takes a part of the rows, and what they find is summed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from foreword.errors import UserError
from foreword.training.world import ALONE, World, is_one_of_several

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others. The first one may download or unpack a model before
all of them read it; a process that has ended is noticed at once, so there is no need for haste."""

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Processes(World):
    """The processes of one run as one of them sees them.

    Whatever is summed or compared here must be reached by all processes, in the same order. Every
    process gets the same sums to the bit, so all of them take the same steps.
    """

    store: Any = field(default=None, compare=False)  # a torch.distributed.Store

    def device(self, word: str) -> str:
        """Return the device that this process has when the run was given ``word``.

        Raises UserError for a device that processes cannot share.
        """
        if word not in ("auto", "cpu", "cuda"):
            raise UserError(
                f"`device={word}` is one device for {self.size} processes; give cuda (one each) "
                "or cpu, or start one process"
            )
        if word == "cpu" or (word == "auto" and not torch.cuda.is_available()):
            return "cpu"
        return f"cuda:{self.local}"

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Return which of the rows with these sizes are this process's, in their order.

        The longest are dealt first, each to the process with the fewest tokens so far. Where
        there are fewer rows than processes, some get none.
        """
        if self.sharded:
            return list(range(len(sizes)))
        loads = [0] * self.size
        mine = []
        for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
            least = loads.index(min(loads))
            loads[least] += sizes[index]
            if least == self.rank:
                mine.append(index)
        return sorted(mine)

    def reduce(self, parameters: Sequence[Tensor]) -> None:
        """Sum the parameters' gradients over all processes, in one flat buffer.

        A parameter that no process has a gradient for keeps none, as in one process.
        """
        if self.sharded:
            return
        given = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = given[0].new_tensor([float(p.grad is not None) for p in parameters])
        flat = torch.cat([*(grad.flatten() for grad in given), there])
        self._call(lambda: dist.all_reduce(flat))
        *parts, there = torch.split(flat, [*(p.numel() for p in parameters), len(parameters)])
        for parameter, part, count in zip(parameters, parts, there.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if count else None

    def total(self, *values: float) -> tuple[float, ...]:
        """Return the sums of numbers over all processes."""
        return values if self.sharded else self._summed(*values)

    def summed(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return the sums of numbers over all processes, some of which may have none of them."""
        longest = -(self.least(-len(values)) or 0)
        return self.total(*values, *[0.0] * (longest - len(values)))

    def _summed(self, *values: float) -> tuple[float, ...]:
        summed = torch.tensor(values, dtype=torch.float64)
        self._call(lambda: dist.all_reduce(summed))
        return tuple(summed.tolist())

    def least(self, value: int | None) -> int | None:
        """Return the smallest number that any process has; None where none has one."""
        none = torch.iinfo(torch.int64).max
        found = torch.tensor(none if value is None else value)
        self._call(lambda: dist.all_reduce(found, dist.ReduceOp.MIN))
        return None if int(found) == none else int(found)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        return self._summed(float(flag)) != (0.0,)

    def same(self, text: str) -> bool:
        """Tell whether all processes hold the same text."""
        own = torch.frombuffer(bytearray(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        others = own.clone()
        self._call(lambda: dist.broadcast(others, 0))
        return not self.any(not torch.equal(own, others))

    def spread(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters; they are the same where all is well."""
        for tensor in module.state_dict().values():
            self._call(lambda tensor=tensor: dist.broadcast(tensor, 0))  # type: ignore[misc]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self._summed(0.0)

    def claim(self) -> bool:
        """Tell whether this process is the one to say why the run ends: the first that asks.

        It says so before it exits, and so before its launcher stops the others for its exit.
        """
        if self.store is None:
            return True
        try:
            return int(self.store.add("told", 1)) == 1
        except RuntimeError:  # the store's own process is gone
            return self.first

    def _call(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:  # every backend's way to say that a connection is lost
            words = " ".join(str(error).split())
            raise UserError(
                f"process {self.rank} of {self.size} has lost the others ({words[:120]}); if they "
                "were killed for memory, use fewer or a smaller `token_budget`; `resume` goes on"
            ) from error


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Join the run that torchrun or ``accelerate launch`` started this process for.

    It is left at the end. Outside of them, and in a run of one process, yields ``ALONE`` and starts
    nothing. Sums go over NCCL on CUDA and over gloo on CPU. Raises UserError where the other
    processes cannot be reached.
    """
    if not is_one_of_several(environment):
        yield ALONE
        return
    given = {name: environment.get(name, "0") for name in _NUMBERS}
    try:
        rank, size, local = (int(given[name]) for name in _NUMBERS)
        store, _, _ = next(rendezvous("env://", rank, size, timeout=PATIENCE))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot join the {given['WORLD_SIZE']} processes of this run "
            f"({' '.join(str(error).split())}); start it with torchrun or accelerate launch"
        ) from error
    try:
        store = dist.PrefixStore("foreword", store)  # type: ignore[attr-defined]
        yield Processes(rank, size, local, store=store)
    finally:
        dist.destroy_process_group()
