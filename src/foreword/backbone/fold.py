"""Folding: what stands in front of all rows, read once and kept as keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from foreword.backbone.rows import virtual
from foreword.injection import KV, Injection

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone


def folded(backbone: Backbone, injection: Injection, lead: Sequence[int]) -> Injection:
    """Read leading virtual tokens and ``lead``; return them behind the prefix there is."""
    ids = [*virtual(backbone, injection.leading), *lead]
    if not ids:
        return injection
    read = backbone.kv(ids, replace(injection, leading=0))
    for site, before in injection.kv.items():
        after = read[site]
        read[site] = KV(
            torch.cat([before.keys.to(after.keys), after.keys], 1),
            torch.cat([before.values.to(after.values), after.values], 1),
        )
    return replace(injection, leading=0, kv=read, positions=injection.positions + len(ids))
