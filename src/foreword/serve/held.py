"""Prompts as the engine holds them: keys and values, loaded once, those used last in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakSet, WeakValueDictionary

import torch

from foreword.backbone.backbone import Backbone
from foreword.injection import KV, Injection


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values before a row, the position where it starts, and how it begins.

    ``leading`` virtual tokens are read with the row. ``copied`` counts the positions that stand in
    the slot itself, 0 where the prefix is shared; ``size`` those that may, 0 where modules differ.
    """

    kv: Mapping[str, KV]
    positions: int
    leading: int
    size: int
    copied: int = 0


class Held:
    """A prompt that is held: what its rows see, and the model as it changes it."""

    def __init__(self, backbone: Backbone, injection: Injection, view: Backbone) -> None:
        self.backbone, self.injection, self.view = backbone, injection, view
        self.headless = _headless(injection)
        self.shared = self._prefix(view.prefill(self.headless, (), 0) or injection)

    @cached_property
    def whole(self) -> Prefix:
        """The prefix for rows that are longer than a window, whose virtual tokens count in it."""
        return self._prefix(self.injection) if self.injection.leading else self.shared

    def prefix(self, length: int) -> Prefix:
        """Return what is before a row that has ``length`` tokens in the end, shared with others."""
        window = self.backbone.window
        fits = window is None or length + self.injection.leading <= window
        return self.shared if fits else self.whole

    def _prefix(self, injection: Injection) -> Prefix:
        device, dtype = self.backbone.device, self.backbone.dtype
        kv = {
            name: KV(own.keys.to(device, dtype), own.values.to(device, dtype))
            for name, own in injection.kv.items()
        }
        sizes = {own.keys.shape[1] for own in kv.values()}
        everywhere = len(sizes) == 1 and kv.keys() == self.backbone.sites.keys()
        size = sizes.pop() if everywhere else 0
        return Prefix(kv, injection.positions, injection.leading, size)


class HeldPrompts:
    """The prompts that are held, within ``memory`` bytes; rows in flight keep theirs.

    One that is forgotten is loaded for the rows that still ask for it, and kept by them alone.
    """

    def __init__(self, backbone: Backbone, memory: int) -> None:
        self.backbone, self.memory = backbone, memory
        self.hits = self.misses = self.size = 0
        self._held: OrderedDict[int, Held] = OrderedDict()
        self._leaving: WeakValueDictionary[int, Held] = WeakValueDictionary()
        self._forgotten: WeakSet[Injection] = WeakSet()

    def __len__(self) -> int:
        return len(self._held)

    @torch.no_grad()
    def get(self, injection: Injection) -> Held:
        """Return a prompt, loaded if it is not held; raises UserError where it does not fit."""
        key = id(injection)
        if (held := self._held.get(key)) is not None:
            self.hits += 1
            self._held.move_to_end(key)
            return held
        if (held := self._leaving.get(key)) is not None:
            self.hits += 1
        else:
            self.misses += 1
            held = Held(self.backbone, injection, self._view(injection))
        if injection in self._forgotten:
            self._leaving[key] = held
        else:
            self._keep(key, held)
        return held

    def _keep(self, key: int, held: Held) -> None:
        self._held[key] = held
        self.size += held_bytes(self.backbone, held.injection)
        while self.size > self.memory and len(self._held) > 1:
            self._drop(next(iter(self._held)))

    def _drop(self, key: int) -> None:
        if (held := self._held.pop(key, None)) is not None:
            self.size -= held_bytes(self.backbone, held.injection)
            self._leaving[key] = held

    def hold(self, injection: Injection) -> None:
        """Load a prompt before it is asked for, also one that was forgotten."""
        self._forgotten.discard(injection)
        self.get(injection)

    def forget(self, injection: Injection) -> None:
        """Hold a prompt no more."""
        self._forgotten.add(injection)
        self._drop(id(injection))

    def _view(self, injection: Injection) -> Backbone:
        """Return the model as a prompt changes it, one view for all that change it alike.

        A head reads the last states, which are the same without it.
        """
        changed = _headless(injection)
        if next(changed.changes(), None) is None:
            return self.backbone
        for other in self._held.values():
            if other.headless.changes_like(changed):
                return other.view
        return self.backbone.with_changes(changed)


def _headless(injection: Injection) -> Injection:
    return injection if injection.head is None else replace(injection, head=None)


def held_bytes(backbone: Backbone, injection: Injection) -> int:
    """Return the bytes that a prompt takes once it is held: its own tensors, and copies of them.

    Keys and values of a type that is not the model's are copied, and so are all where a soft
    prompt leads, which is read into keys and values behind them.
    """
    total = sum(tensor.nbytes for _, tensor in injection.tensors())
    dtype, device = backbone.dtype, backbone.device
    read = injection.leading if injection.leading and backbone.can_prefill else 0
    for name, site in backbone.sites.items() if read or injection.kv else ():
        own = injection.kv.get(name)
        count = 0 if own is None else own.keys.shape[1]
        same = own is None or (own.keys.dtype, own.keys.device) == (dtype, device)
        if read or not same:
            each = site.heads * (site.key_width + site.value_width)
            total += (count + read) * each * dtype.itemsize
    for tensor in injection.weights.values():
        if (tensor.dtype, tensor.device) != (dtype, device):
            total += tensor.numel() * dtype.itemsize
    return total
