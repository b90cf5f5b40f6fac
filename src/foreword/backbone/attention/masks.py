"""Masks: which tokens of a batch are real, and which see which where they form trees."""

from __future__ import annotations

from collections.abc import Sequence

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
    seen = torch.eye(length, dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, parents in enumerate(trees):
        for token, parent in enumerate(parents):
            if parent >= 0:
                seen[row, token] |= seen[row, parent]
    return seen[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask of what is seen into what is added to scores; an additive one stays."""
    if mask.dtype != torch.bool:
        return mask
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return hidden.masked_fill(~mask, torch.finfo(dtype).min)
