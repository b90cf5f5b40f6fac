"""Rows that the engine has under way, and one pass of the model over some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.attention.masks import ancestors
from foreword.backbone.attention.slots import Block, Masks, PrefixOf, SlotPass, Span
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import depths
from foreword.backbone.run.inputs import model_inputs, virtual
from foreword.backbone.run.layers import WHOLE
from foreword.backbone.run.single_stack import run_layers
from foreword.injection import Injection, Mixture
from foreword.serve.held import Held, Prefix
from foreword.serve.pool import Pool, Slot

COPIED = 192
"""A prefix is copied into the slots of its rows where these copies have no more positions in all.

Else it is attended to once for all of its rows in a pass, which costs as much as reading 170
positions in slots (on SmolLM2: 60 microseconds a module, and 0.35 a row and position).
"""


@dataclass(eq=False)
class Row:
    """A row in its slot: the tokens that it has, of which ``read`` stand there already.

    ``parents`` are those of a tree of tokens, as in ``Line``; ``wanted`` the tokens whose last
    states are.
    """

    held: Held
    prefix: Prefix
    tokens: list[int]
    slot: Slot
    parents: Sequence[int] | None = None
    wanted: Sequence[int] = ()
    read: int = 0
    depths: list[int] = field(default_factory=list)

    @staticmethod
    def begin(
        held: Held,
        ids: Sequence[int],
        pool: Pool,
        more: int,
        parents: Sequence[int] | None = None,
        wanted: Sequence[int] = (),
        together: int = 1,
    ) -> Row | None:
        """Take a slot for a row that gets up to ``more`` tokens; None while there is none.

        ``together`` is how many rows under the same prompt are there at once.
        """
        prefix = held.prefix(len(ids) + more)
        leading = virtual(held.view, prefix.leading)
        need = len(leading) + len(ids) + more
        slot = None
        if together * prefix.size <= COPIED and prefix.size + need <= pool.tokens:
            slot = pool.take(prefix.size + need)
        if slot is not None:
            prefix = replace(prefix, copied=prefix.size)
        elif (slot := pool.take(need)) is None:
            return None
        if prefix.copied:
            try:
                pool.put(slot, prefix.kv)
            except Exception:  # of any kind: the slot is free again
                pool.give_back(slot, prefix.copied)
                raise
        count = len(leading)
        if parents is not None:
            parents = [*range(-1, count - 1), *(parent + count for parent in parents)]
        wanted = [place + count for place in wanted]
        made = Row(held, prefix, [*leading, *ids], slot, parents, wanted)
        made.depths = [] if parents is None else depths(parents)
        return made

    def give_back(self, pool: Pool) -> None:
        """Leave the slot."""
        pool.give_back(self.slot, self.prefix.copied + len(self.tokens))


@dataclass(frozen=True, eq=False)
class Turn:
    """A row with the tokens, from ``start`` to ``stop``, that it reads in the next pass."""

    row: Row
    start: int
    stop: int

    @property
    def wanted(self) -> list[int]:
        """The tokens among them whose states are wanted."""
        return [place for place in self.row.wanted if self.start <= place < self.stop]


@torch.no_grad()
def read(view: Backbone, pool: Pool, turns: Sequence[Turn]) -> list[Tensor]:
    """Run one pass; return the states of each turn's wanted tokens: (tokens, width)."""
    single = [turn for turn in turns if turn.stop - turn.start == 1 and turn.row.parents is None]
    single.sort(key=lambda turn: (turn.row.slot.slab.first, turn.row.slot.number))
    longer = [turn for turn in turns if turn.stop - turn.start > 1 or turn.row.parents is not None]
    order = [*single, *longer]
    ids: list[int] = []
    positions: list[int] = []
    written: list[int] = []
    wanted: list[int] = []
    firsts: list[int] = []
    parts: dict[int, Injection] = {}
    owners: list[int] = []
    for turn in order:
        row, own = turn.row, range(turn.start, turn.stop)
        firsts.append(len(ids))
        wanted += [len(ids) + place - turn.start for place in turn.wanted]
        ids += row.tokens[turn.start : turn.stop]
        offset = view.first_position + row.prefix.positions
        positions += [offset + (row.depths[n] if row.depths else n) for n in own]
        base = row.slot.first + row.prefix.copied
        written += range(base + turn.start, base + turn.stop)
        parts.setdefault(id(row.held.injection), row.held.injection)
        owners += [id(row.held.injection)] * len(own)
    inputs = _inputs(view, ids, parts, owners)
    inputs["position_ids"] = view.to_device(torch.tensor([positions]))
    # Of four dimensions, so that no model builds its own mask; attention goes by the slots.
    inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=view.device)
    blocks = _blocks(view, pool, single)
    spans = [
        Span(first, first + turn.stop - turn.start, turn.row.slot.first, _end(turn), masks)
        for turn, first in zip(longer, firsts[len(single) :], strict=True)
        for masks in [{window: _span_mask(view, turn, window) for window in pool.windows}]
    ]
    inputs["foreword"] = PassContext(
        slots=SlotPass(
            pool.of(view),
            view.to_device(torch.tensor(written)),
            blocks,
            spans,
            _prefixes(view, order, firsts),
        )
    )
    hidden = run_layers(view, inputs, WHOLE, None)[0]
    states = hidden[view.to_device(torch.tensor(wanted, dtype=torch.long))]
    sizes = [len(turn.wanted) for turn in order]
    by_turn = dict(zip(map(id, order), torch.split(states, sizes), strict=True))
    return [by_turn[id(turn)] for turn in turns]


def _inputs(
    view: Backbone, ids: list[int], parts: Mapping[int, Injection], owners: list[int]
) -> dict[str, Any]:
    number = {key: n for n, key in enumerate(parts)}
    owner = torch.tensor([[number[key] for key in owners]])
    mixture = Mixture(tuple(parts.values()), [0])
    made: dict[str, Any] = model_inputs(view, torch.tensor([ids]), owner, mixture)
    return made


def _end(turn: Turn) -> int:
    """Return how much of its slot a row sees."""
    return turn.row.prefix.copied + turn.stop


def _blocks(view: Backbone, pool: Pool, single: Sequence[Turn]) -> list[Block]:
    """Return rows of one token each by their slabs, in the order of their slots."""
    made: list[Block] = []
    start = 0
    while start < len(single):
        slab = single[start].row.slot.slab
        stop = start
        while stop < len(single) and single[stop].row.slot.slab is slab:
            stop += 1
        some = single[start:stop]
        low = some[0].row.slot.number
        rows = some[-1].row.slot.number + 1 - low
        length = max(map(_end, some))
        places = torch.tensor([turn.row.slot.number - low for turn in some])
        masks: Masks = {
            window: _block_mask(view, some, places, rows, length, window) for window in pool.windows
        }
        gaps = None if rows == len(some) else view.to_device(places)
        first = slab.first + low * slab.room
        made.append(Block(start, stop, first, rows, slab.room, length, gaps, masks))
        start = stop
    return made


def _block_mask(
    view: Backbone,
    some: Sequence[Turn],
    places: Tensor,
    rows: int,
    length: int,
    window: int | None,
) -> Tensor:
    """Return what is added to the scores of a block: (rows, 1, 1, length)."""
    ends = torch.ones(rows, dtype=torch.long)  # a slot between them sees something, for no one
    ends[places] = torch.tensor([_end(turn) for turn in some])
    column = torch.arange(length)
    seen = column < ends[:, None]
    if window is not None:
        copied = torch.zeros(rows, dtype=torch.long)
        copied[places] = torch.tensor([turn.row.prefix.copied for turn in some])
        seen &= (column < copied[:, None]) | (column >= ends[:, None] - window)
    return _added(view, seen[:, None, None])


def _span_mask(view: Backbone, turn: Turn, window: int | None) -> Tensor | None:
    """Return what is added to the scores of a row that reads several tokens: (1, 1, T, length)."""
    row, copied = turn.row, turn.row.prefix.copied
    whole = window is None or turn.stop <= window
    if row.parents is None and whole and turn.start == 0 and copied == 0:
        return None
    if row.parents is not None:
        own = ancestors([row.parents], len(row.parents))[0, 0]
        own = own[turn.start : turn.stop, : turn.stop]
    else:
        at, column = torch.arange(turn.start, turn.stop)[:, None], torch.arange(turn.stop)
        own = column <= at
        if window is not None:
            own &= column > at - window
    before = torch.ones(len(own), copied, dtype=torch.bool)
    return _added(view, torch.cat([before, own], 1)[None, None])


def _added(view: Backbone, seen: Tensor) -> Tensor:
    hidden = torch.zeros(seen.shape, dtype=view.dtype)
    return view.to_device(hidden.masked_fill_(~seen, torch.finfo(view.dtype).min))


def _prefixes(view: Backbone, order: Sequence[Turn], firsts: Sequence[int]) -> list[PrefixOf]:
    """Return the prefixes that are no part of slots, each with all tokens that see it."""
    tokens: dict[int, list[int]] = {}
    kinds: dict[int, Prefix] = {}
    for turn, first in zip(order, firsts, strict=True):
        prefix = turn.row.prefix
        if prefix.kv and not prefix.copied:
            kinds[id(prefix)] = prefix
            tokens.setdefault(id(prefix), []).extend(range(first, first + turn.stop - turn.start))
    return [
        PrefixOf(kinds[key].kv, view.to_device(torch.tensor(own))) for key, own in tokens.items()
    ]
