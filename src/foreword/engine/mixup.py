"""Mixup: the last hidden states of rows, and their losses, mixed two by two."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Mix:
    """How the rows of a step are mixed, two by two (mixup: Zhang et al. 2018, arXiv:1710.09412).

    The last hidden states of a row and of a partner are mixed before the head, ``share`` of the
    row with the rest of the partner, and so are the losses of their answers (Sun et al. 2020,
    arXiv:2010.02394). Every row has one target.
    """

    share: float
    chance: torch.Generator

    @staticmethod
    def draw(alpha: float, chance: torch.Generator) -> Mix:
        """Draw the share from Beta(alpha, alpha)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=chance)))
            share = float(torch.distributions.Beta(alpha, alpha).sample())
        return Mix(share, chance)

    def partners(self, rows: int) -> list[int]:
        """Draw a partner for each of some rows: a permutation of them."""
        return torch.randperm(rows, generator=self.chance).tolist()
