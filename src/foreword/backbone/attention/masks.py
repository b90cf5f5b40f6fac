"""Masks: which tokens of a batch are real, and which see which where they form trees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foreword.backbone.example import Line


def padding(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """Mark the real tokens of rows padded on the right: (B, T), 1 or 0."""
    sizes = torch.tensor([len(row) for row in rows])
    return (torch.arange(length)[None] < sizes[:, None]).long()  # (B, T)


def shift_parents(line: Line, lead: int) -> list[int]:
    """Return the parents of a line's tokens with ``lead`` tokens put before them."""
    own = line.parents if line.parents is not None else range(-1, len(line.tokens) - 1)
    return [*range(-1, lead - 1), *(parent + lead for parent in own)]


def ancestors(trees: Sequence[Sequence[int]], length: int) -> Tensor:
    """Let each token see itself and its ancestors: (B, 1, T, T) bool."""
    seen = np.tile(np.eye(length, dtype=bool), (len(trees), 1, 1))
    for own, parents in zip(seen, trees, strict=True):
        above = np.array(parents)
        # Token 0 has no parent; the chain behind it, most of a row, is a triangle.
        chain = int(np.argmin([*(above == np.arange(len(above)) - 1), False]))
        own[:chain, :chain] = np.tri(chain, dtype=bool)
        left = np.arange(chain, len(above))
        left = left[above[left] >= 0]
        while len(left):  # one round for each further step from the chain
            ready = ~np.isin(above[left], left)
            own[left[ready]] |= own[above[left[ready]]]
            left = left[~ready]
    return torch.from_numpy(seen)[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask of what is seen into what is added to scores; an additive one stays."""
    if mask.dtype != torch.bool:
        return mask
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return hidden.masked_fill(~mask, torch.finfo(dtype).min)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return which tokens each token of a row sees, those up to itself: (1, 1, T, T) bool."""
    return torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()
