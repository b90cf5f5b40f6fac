"""Keys that hardly any query attends to, for a prefix that begins as nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foreword.backbone.example import Line
from foreword.backbone.inside.attention_sites import Site
from foreword.backbone.run.single_stack import run_padded
from foreword.data.row import Row
from foreword.injection import NOTHING, Mixture
from foreword.tasks.base import Bound
from foreword.tasks.templates.layout import room_for

SHARE = 0.01
"""The share of its attention that a query pays to the whole prefix."""

MOST_ROWS = 32
"""Rows whose queries are looked at."""

RIDGE = 1e-3
"""What is added to the queries' second moments, as a share of their mean."""


def unattended_keys(
    task: Bound, rows: Sequence[Row], sites: Sequence[Site], length: int
) -> dict[str, Tensor]:
    """Return a key (H, D) for each of these sites to which queries pay next to no attention.

    A query whose scores over its row have the log-sum-exp z pays ``length`` positions of score s
    the share `SHARE` where ``s = z + log(SHARE / (1 - SHARE)) - log(length)``. The key is the one
    whose scores come nearest to that by least squares, over the queries of some training rows. For
    models of one stack; windows and positions behind the prefix are not thought of.
    """
    backbone, plain = task.backbone, task.zero_shot()
    names = {site.module: site.name for site in sites if not site.recurrent}
    moments: dict[str, Tensor] = {}  # of queries with queries: (H, D, D)
    wanted: dict[str, Tensor] = {}  # of queries with the scores that are wanted: (H, D)
    below = math.log(SHARE / (1 - SHARE)) - math.log(length)

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> None:
        if (name := names.get(module)) is None:
            return
        _, heads, _, width = key.shape
        scale = getattr(module, "scaling", None) or width**-0.5
        asked = scale * query[0].detach().cpu().double().reshape(heads, -1, width)  # (H, N, D)
        scores = asked @ key[0].detach().cpu().double().transpose(1, 2)
        if backbone.is_causal:
            places = torch.arange(scores.shape[2])
            later = places > places.repeat(scores.shape[1] // len(places))[:, None]
            scores = scores.masked_fill(later, -math.inf)
        goal = scores.logsumexp(2) + below  # (H, N)
        found = asked.transpose(1, 2) @ asked, (asked.transpose(1, 2) @ goal[..., None])[..., 0]
        moments[name] = moments.get(name, 0) + found[0]
        wanted[name] = wanted.get(name, 0) + found[1]

    room = room_for(backbone, NOTHING)
    with torch.no_grad():
        for row in [*rows, *task.names][:MOST_ROWS]:
            example = plain.dev_example(row, room).example
            if ids := next(filter(None, (example.ids, *example.branches)), ()):
                run_padded(backbone, [Line(ids)], Mixture((NOTHING,), (0,)), record=record)
    return {
        name: torch.linalg.solve(_ridged(moments[name]), wanted[name]).float() for name in moments
    }


def _ridged(moments: Tensor) -> Tensor:
    """Add `RIDGE` to second moments, so that they can be divided by: (H, D, D)."""
    each = RIDGE * moments.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    return moments + each[:, None, None] * torch.eye(moments.shape[1], dtype=moments.dtype)
