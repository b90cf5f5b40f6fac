"""The pool: memory for the keys and values of rows, in slots that are taken and given back."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from foreword.backbone.attention.slots import SiteSlots
from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.injection import KV

SLAB = 4096
"""Tokens of a slab, whose slots are side by side, so that their rows are one batch."""

ROWS = 32
"""The most slots of a slab."""


def room_for_tokens(need: int) -> int:
    """Return the room of a slot for a row of ``need`` tokens: 32, 48, 64, 96, 128, 192 ..."""
    room = 32
    while room < need:
        room = room * 3 // 2 if room & (room - 1) == 0 else room // 3 * 4
    return room


@dataclass(eq=False)
class Slab:
    """Slots of one size, side by side from ``first`` on; ``free`` are the numbers of some."""

    first: int
    room: int
    count: int
    free: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Slot:
    """Room for one row."""

    slab: Slab
    number: int

    @property
    def first(self) -> int:
        """The place of its first token in the pool."""
        return self.slab.first + self.number * self.slab.room


class Pool:
    """Keys and values of up to ``tokens`` tokens for every attention module of a model.

    What a slot held is overwritten with zeros when it is given back.
    """

    def __init__(self, backbone: Backbone, tokens: int) -> None:
        self.tokens = tokens
        self.site_slots = {
            name: SiteSlots(
                name,
                _zeros((tokens, site.heads, site.key_width), backbone),
                _zeros((tokens, site.heads, site.value_width), backbone),
                site.window,
            )
            for name, site in backbone.sites.items()
        }
        self.windows = {held.window for held in self.site_slots.values()}
        self.slabs: list[Slab] = []
        self._gaps = [(0, tokens)]  # first, size

    def of(self, view: Backbone) -> Mapping[nn.Module, SiteSlots]:
        """Return the slots by the modules of a view of the model."""
        return {site.module: self.site_slots[name] for name, site in view.sites.items()}

    @property
    def bytes_per_token(self) -> int:
        """What a token takes."""
        return sum(
            held[:1].numel() * held.element_size()
            for slots in self.site_slots.values()
            for held in (slots.keys, slots.values)
        )

    @property
    def used(self) -> int:
        """The tokens of all slots that are taken."""
        return sum(slab.room * (slab.count - len(slab.free)) for slab in self.slabs)

    def touch(self) -> None:
        """Take the memory of all slots that nothing was written to yet."""
        for first, size in self._gaps:
            for held in self.site_slots.values():
                held.keys[first : first + size] = 0
                held.values[first : first + size] = 0

    def take(self, need: int) -> Slot | None:
        """Take a slot for a row of ``need`` tokens; None while there is none.

        Raises UserError for a row that will never have one.
        """
        if need > self.tokens:
            raise UserError(
                f"a row of {need} tokens with its prompt and answer needs more than the "
                f"{self.tokens} that all slots have (`tokens`)"
            )
        room = min(room_for_tokens(need), self.tokens)
        for slab in self.slabs:
            if slab.room == room and slab.free:
                return Slot(slab, heapq.heappop(slab.free))
        count = max(1, min(ROWS, SLAB // room))
        while count:
            for number, (first, size) in enumerate(self._gaps):
                if size >= count * room:
                    self._gaps[number] = (first + count * room, size - count * room)
                    slab = Slab(first, room, count, list(range(count)))
                    self.slabs.append(slab)
                    return Slot(slab, heapq.heappop(slab.free))
            count //= 2
        return None

    def put(self, slot: Slot, kv: Mapping[str, KV]) -> None:
        """Write a prefix, which every module has, to the beginning of a slot."""
        for name, own in kv.items():
            seen = slice(slot.first, slot.first + own.keys.shape[1])
            self.site_slots[name].keys[seen] = own.keys.transpose(0, 1)
            self.site_slots[name].values[seen] = own.values.transpose(0, 1)

    def give_back(self, slot: Slot, used: int) -> None:
        """Give a slot back, of which the first ``used`` tokens were written."""
        slab, seen = slot.slab, slice(slot.first, slot.first + used)
        for held in self.site_slots.values():
            held.keys[seen] = 0
            held.values[seen] = 0
        heapq.heappush(slab.free, slot.number)
        if len(slab.free) == slab.count:
            self.slabs.remove(slab)
            gaps = sorted([*self._gaps, (slab.first, slab.count * slab.room)])
            self._gaps = []
            for first, size in gaps:
                if self._gaps and sum(self._gaps[-1]) == first:
                    first, size = self._gaps[-1][0], self._gaps.pop()[1] + size
                self._gaps.append((first, size))


def _zeros(shape: tuple[int, ...], backbone: Backbone) -> Tensor:
    """Return zeros; on a CPU memory that is not taken before something else is written there."""
    if backbone.device.type != "cpu":
        return torch.zeros(shape, dtype=backbone.dtype, device=backbone.device)
    size = torch.empty((), dtype=backbone.dtype).element_size()
    count = int(np.prod(shape))
    return torch.from_numpy(np.zeros(count * size, dtype=np.uint8)).view(backbone.dtype).view(shape)
