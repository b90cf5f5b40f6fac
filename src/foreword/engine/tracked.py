"""Bytes of the tensors that are made while code runs: how many stand, and the most at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of tensors that operations return, but for those of ``known`` tensors.

    ``now`` is what stands of them, ``peak`` the most that has stood. It needs no counter of the
    device, so that it counts alike everywhere. What an operation holds for itself while it runs is
    not seen.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = [tensor.untyped_storage() for tensor in known if not is_wrapped(tensor)]
        self.held = {storage._cdata for storage in self.known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and not is_wrapped(tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self.held:
            return
        self.held.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, place, size).atexit = False

    def _free(self, place: int, size: int) -> None:
        self.held.discard(place)
        self.now -= size


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a tensor is made of others, as a quantized weight is, and has no storage itself."""
    return hasattr(tensor, "__tensor_flatten__") and type(tensor) is not torch.nn.Parameter
