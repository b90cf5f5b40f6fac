"""Regularisers of a step: what is left out, held back or compared while a prompt is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreword.backbone.example import Example
from foreword.injection import KV, Injection, Mixture


def dropped(
    injection: Injection | Mixture, share: float, chance: torch.Generator
) -> Injection | Mixture:
    """Leave out each virtual token, and each position of keys and values, with this probability.

    The choice is drawn anew in every step and is the same for all of its rows and layers (token
    dropout, as in context tuning: Lu et al. 2025, arXiv:2507.04221). Keys that stay keep the
    positions they were read at, and rows begin where they would; of leading virtual tokens the
    others close up; those in a template are set to zero. One of each always stays, and so do the
    tokenizer's first tokens (``Injection.bos``). Patches, weights and heads are left alone.
    """
    if isinstance(injection, Mixture):
        parts = tuple(_dropped(part, share, chance) for part in injection.parts)
        return Mixture(parts, injection.rows)
    return _dropped(injection, share, chance)


def _dropped(injection: Injection, share: float, chance: torch.Generator) -> Injection:
    kept: dict[int, Tensor] = {}

    def places(size: int) -> Tensor:
        if size not in kept:
            kept[size] = _kept(size, share, chance)
            kept[size][: injection.bos] = True
        return kept[size]

    made = injection
    embeds = injection.embeds
    if embeds is not None:
        stay = places(len(embeds)).to(embeds.device)
        if injection.leading == len(embeds):
            made = replace(made, embeds=embeds[stay], leading=int(stay.sum()))
        else:
            made = replace(made, embeds=embeds * stay[:, None])
    kv = {}
    for site, own in injection.kv.items():
        index = places(own.keys.shape[1]).nonzero()[:, 0].to(own.keys.device)
        kv[site] = KV(own.keys.index_select(1, index), own.values.index_select(1, index))
    return replace(made, kv=kv)


def _kept(size: int, share: float, chance: torch.Generator) -> Tensor:
    """Return which of ``size`` stay, (size,) bool, at least one."""
    drawn = torch.rand(size, generator=chance)
    stay = drawn >= share
    if not bool(stay.any()):
        stay[drawn.argmax()] = True
    return stay


def without_words(example: Example, share: float, chance: torch.Generator) -> Example:
    """Leave out each token of a row with this probability, but for the first and the last.

    The row is one that an encoder reads as a whole; of its tokens between one always stays.
    """
    middle = example.ids[1:-1]
    if not middle:
        return example
    stay = _kept(len(middle), share, chance).tolist()
    kept = (token for token, stays in zip(middle, stay, strict=True) if stays)
    ids = (example.ids[0], *kept, example.ids[-1])
    return replace(example, ids=ids, slot=len(ids))


TEMPERATURE = 0.1
"""What cosines are divided by where rows are compared (that of Khosla et al. 2020)."""


def contrast(states: Tensor, labels: Sequence[int]) -> Tensor:
    """Return a loss that pulls the states of a label together: (rows, width) -> (rows,).

    For each row it is minus the mean log-probability of the others of its label, under a softmax of
    the cosines with all other rows over ``TEMPERATURE`` (the supervised contrastive loss: Khosla
    et al. 2020, arXiv:2004.11362; beside cross entropy, Gunel et al. 2021, arXiv:2011.01403). A
    row that is alone with its label has 0.
    """
    unit = F.normalize(states.float(), dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / TEMPERATURE).masked_fill(own, -1e9)
    names = torch.tensor(list(labels), device=unit.device)
    alike = (names[:, None] == names) & ~own
    logs = scores.log_softmax(1).masked_fill(~alike, 0)
    return -logs.sum(1) / alike.sum(1).clamp(min=1)


def in_pairs(order: Sequence[int], labels: Sequence[int]) -> tuple[int, ...]:
    """Return an order of rows in which each is followed by the next one of its label.

    >>> in_pairs([0, 1, 2, 3, 4], labels=[7, 8, 8, 7, 7])
    (0, 3, 1, 2, 4)
    """
    waiting: dict[int, list[int]] = {}
    pairs: list[list[int]] = []
    for row in order:
        first = waiting.pop(labels[row], None)
        if first is None:
            first = waiting[labels[row]] = []
            pairs.append(first)
        first.append(row)
    return tuple(row for pair in pairs for row in pair)


class Anchor:
    """An L2 penalty to the start: ``strength / 2 * |theta - theta_0|^2``.

    L2-SP (Xuhong, Grandvalet and Davoine 2018, arXiv:1802.01483). Its gradient is added to that
    of the loss; the loss that is shown is without it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], strength: float) -> None:
        self.parameters = parameters
        self.strength = strength
        self.start = [parameter.detach().clone() for parameter in parameters]

    def pull(self) -> None:
        """Add ``strength * (theta - theta_0)`` to every gradient."""
        for parameter, start in zip(self.parameters, self.start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self.strength)
