"""Packing: rows of different lengths end to end in one row of tokens, with no padding between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.backbone.attention.masks import additive, ancestors

WASTE = 1.15
"""A block takes another row while its padded size is at most this many times its tokens."""


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the rows are among N packed tokens, after ``lead`` tokens that every row sees.

    Rows are grouped into blocks of near-equal length; only attention pads them, one block at a
    time. The lead, where there is one, is the first block. All fields but ``lead`` are tensors,
    so that a compiled layer takes one packing after another.

    - ``plan`` (blocks, 4), on the CPU: each block's first token, its number of tokens, its
      number of rows B and the length T of its longest row.
    - ``places`` (N,): the index of each token in its padded block, b * T + t.
    - ``sources`` (sum of B * T,): the token at each index of the padded blocks; a row's last
      token where there is padding.
    - ``masks``: where rows are trees of tokens, the additive masks (B, T, T) of all blocks,
      flattened and joined; empty where each token sees all those before it.
    """

    lead: int
    plan: Tensor
    places: Tensor
    sources: Tensor
    masks: Tensor

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks, the lead first where there is one."""
        padded = masked = 0
        for start, tokens, rows, length in self.plan.tolist():
            mask = None
            if len(self.masks):
                size = rows * length * length
                mask = self.masks[masked : masked + size].view(rows, 1, length, length)
                masked += size
            stop, size = start + tokens, rows * length
            sources = self.sources[padded : padded + size]
            padded += size
            yield Block(start, stop, rows, length, self.places[start:stop], sources, mask)


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of near-equal length: the tokens ``start`` to ``stop`` of a packing."""

    start: int
    stop: int
    rows: int  # B
    length: int  # T
    places: Tensor  # (stop - start,)
    sources: Tensor  # (B * T,)
    mask: Tensor | None  # (B, 1, T, T) additive

    @property
    def even(self) -> bool:
        """Whether all rows are equally long, so that nothing is padded."""
        return self.stop - self.start == self.rows * self.length

    def spread(self, packed: Tensor) -> Tensor:
        """Return the block's rows, padded with their last tokens: (N, ...) -> (B, T, ...).

        Copies of real tokens keep attention's backward pass finite: a padded key scores no more
        than the token it copies, so ``exp(score - lse)`` is at most 1.
        """
        if self.even:
            own = packed[self.start : self.stop]
        else:
            own = packed.index_select(0, self.sources)
        return own.reshape(self.rows, self.length, *own.shape[1:])

    def spread_zero(self, packed: Tensor) -> Tensor:
        """Return the block's rows padded with zeros, as gradients need: (N, ...) -> (B, T, ...)."""
        own = packed[self.start : self.stop]
        if not self.even:
            room = own.new_zeros(self.rows * self.length, *own.shape[1:])
            own = room.index_copy(0, self.places, own)
        return own.reshape(self.rows, self.length, *own.shape[1:])

    def collect(self, padded: Tensor) -> Tensor:
        """Pack padded rows again: (B, T, ...) -> (stop - start, ...)."""
        flat = padded.reshape(self.rows * self.length, *padded.shape[2:])
        return flat if self.even else flat.index_select(0, self.places)


def pack(
    sizes: Sequence[int],
    lead: int,
    trees: Sequence[Sequence[int]] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Packing:
    """Lay out a lead and rows of these sizes, longest first; ``trees`` are the rows' parents.

    The rows come in descending order of size, as :func:`packed_order` gives it.
    """
    groups: list[list[int]] = []
    for row, size in enumerate(sizes):
        if groups:
            group = groups[-1]
            real = sum(sizes[r] for r in group) + size
            if sizes[group[0]] * (len(group) + 1) <= WASTE * real:
                group.append(row)
                continue
        groups.append([row])
    plan: list[tuple[int, int, int, int]] = []
    places: list[Tensor] = []
    sources: list[Tensor] = []
    masks: list[list[Sequence[int]]] = []
    if lead:
        plan.append((0, lead, 1, lead))
        places.append(torch.arange(lead))
        sources.append(torch.arange(lead))
        masks.append([range(-1, lead - 1)])
    start = lead
    for group in groups:
        longest, tokens = sizes[group[0]], sum(sizes[row] for row in group)
        plan.append((start, tokens, len(group), longest))
        places += [torch.arange(sizes[row]) + n * longest for n, row in enumerate(group)]
        for row in group:
            sources.append(start + torch.arange(longest).clamp(max=sizes[row] - 1))
            start += sizes[row]
        masks.append([] if trees is None else [trees[row] for row in group])
    hidden = [
        additive(ancestors(own, length), dtype).flatten()
        for own, (_, _, _, length) in zip(masks, plan, strict=True)
        if trees is not None
    ]
    return Packing(
        lead=lead,
        plan=torch.tensor(plan),
        places=torch.cat(places).to(device),
        sources=torch.cat(sources).to(device),
        masks=torch.cat(hidden).to(device) if hidden else torch.zeros(0, device=device),
    )


def packed_order(sizes: Sequence[int]) -> list[int]:
    """Return the rows in the order in which they are packed: longest first."""
    return sorted(range(len(sizes)), key=lambda row: (-sizes[row], row))
