"""Climbing: the states that enter each layer, one layer run at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, common_lead
from foreword.backbone.run.examples import lower_states
from foreword.backbone.run.layers import WHOLE
from foreword.engine.groups import StoredStates, token_budget
from foreword.engine.passes import passes_over
from foreword.injection import Injection


@torch.no_grad()
def climb(
    backbone: Backbone, injection: Injection, examples: Sequence[Example]
) -> Iterator[StoredStates]:
    """Yield the states that enter layer 1, 2, and so on; the last are those behind all layers.

    All of them cost one pass. The injection has no leading virtual tokens, and the examples stand
    behind it already. The layers are those of the backbone's stack, which must be one that
    ``can_skip_lower_layers``.
    """
    assert backbone.stack is not None
    assert not injection.leading
    lead = len(common_lead(examples)) if backbone.can_pack else 0
    groups = passes_over(examples, backbone, lead, token_budget(backbone))
    held: StoredStates | None = None
    for layer in range(1, len(backbone.stack.layers) + 1):
        first = torch.zeros(0, backbone.width)
        rows: dict[int, Tensor] = {}
        for group in groups:
            start = WHOLE if held is None else held.of(group, backbone.device)
            some, layers = [examples[i] for i in group], replace(start, last=layer)
            first, own = lower_states(
                backbone, some, injection, lead, layers, pack=backbone.can_pack
            )
            rows.update(zip(group, own, strict=True))
        held = StoredStates(layer, first, [rows[i] for i in range(len(examples))])
        yield held
