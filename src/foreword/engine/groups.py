"""Which rows run together, and what they share: a lead, virtual tokens, stored states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.run.layers import LayerRange
from foreword.injection import Injection, Mixture

WORTH_SHARING = 8
"""The shortest lead that is read in a pass of its own; for fewer tokens that costs more than it
saves."""

ROWS_A_PART = 2
"""From this many rows a part, a mixture's leading virtual tokens are read once for each part."""


def token_budget(backbone: Backbone) -> int:
    """Return how many tokens one pass should have: enough to be busy, few enough to stay cached."""
    return 1024 if backbone.device.type == "cpu" else 16384


def buckets(sizes: Sequence[int], budget: int, *, padded: bool = True) -> list[list[int]]:
    """Part rows into groups of near-equal length, each at most ``budget`` tokens.

    Padding counts too where rows are ``padded``. Returns indices, longest rows first; a row
    longer than the budget makes a group of its own.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    groups: list[list[int]] = []
    held = 0
    for index in order:
        size = sizes[groups[-1][0]] if groups and padded else sizes[index]
        if groups and held + size <= budget:
            groups[-1].append(index)
            held += size
        else:
            groups.append([index])
            held = sizes[index]
    return groups


@dataclass(frozen=True, eq=False)
class StoredStates:
    """States that enter ``layer``, stored so that the layers below need not run again.

    ``lead`` holds those of the tokens with which all rows begin, ``rows`` those of each
    example's other tokens: (tokens, width).
    """

    layer: int
    lead: Tensor
    rows: Sequence[Tensor]

    def of(self, group: Sequence[int], device: torch.device) -> LayerRange:
        """Return the states of some rows, where the model is."""
        held = (self.lead, *(self.rows[i] for i in group))
        return LayerRange(self.layer, tuple(t.to(device, non_blocking=True) for t in held))


@dataclass(frozen=True)
class Shared:
    """An injection for rows that begin with the same tokens, their lead.

    The first ``lead`` tokens of every row are in the injection already, as keys and values; a
    pass runs the next ``in_pass_lead`` tokens once for all its rows.
    """

    injection: Injection | Mixture
    lead: int = 0
    in_pass_lead: int = 0


def share(
    backbone: Backbone, injection: Injection | Mixture, lead: Sequence[int], longest: int
) -> Shared:
    """Read leading virtual tokens and the rows' lead once, where that is exact and saves time."""
    if isinstance(injection, Mixture):
        parts = [share(backbone, part, (), longest).injection for part in injection.parts]
        return Shared(
            Mixture(tuple(p for p in parts if isinstance(p, Injection)), injection.rows), 0
        )
    if len(lead) < WORTH_SHARING:
        lead = ()
    if not injection.leading and not lead:
        return Shared(injection)
    folded = backbone.prefill(injection, lead, longest)
    return Shared(injection) if folded is None else Shared(folded, len(lead))


def planned(
    backbone: Backbone,
    injection: Injection | Mixture,
    examples: Sequence[Example],
    lead: Sequence[int],
    longest: int,
    budget: int,
    given: StoredStates | None,
) -> tuple[Shared, list[list[int]]]:
    """Return what the passes of some rows share, and the rows of each.

    A single pass runs the lead with its rows. Before several passes, and for a mixture with many
    rows a part, the lead and leading virtual tokens are read once. One row has nothing to share.
    """
    if len(examples) == 1 and given is None:
        return Shared(injection), [[0]]
    lead = () if isinstance(injection, Mixture) else lead
    shared = Shared(injection, 0, len(lead) if given is None else len(given.lead))
    groups = groups_of(backbone, shared, examples, budget)
    many = isinstance(injection, Mixture) and len(examples) >= ROWS_A_PART * len(injection.parts)
    apart = len(groups) > 1 or many or not backbone.can_pack
    # A sharded layer is gathered again where its output has a gradient, and reading has none.
    if given is None and apart and not (backbone.sharded and torch.is_grad_enabled()):
        shared = share(backbone, injection, lead, longest)
        groups = groups_of(backbone, shared, examples, budget)
    return shared, groups


def groups_of(
    backbone: Backbone, shared: Shared, examples: Sequence[Example], budget: int
) -> list[list[int]]:
    """Group rows into passes; tokens in the injection, or run once, are not counted."""
    done = shared.lead + shared.in_pass_lead
    sizes = [example.length - done for example in examples]
    return buckets(sizes, budget, padded=not backbone.can_pack)
