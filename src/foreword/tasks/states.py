"""The states of rows at the places that their task reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.injection import Injection, Mixture
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for


def states_of_rows(
    bound: Bound,
    rows: Sequence[Row],
    injection: Injection | Mixture,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[list[Encoded], list[Tensor]]:
    """Return rows as the dev score reads them, and their last hidden states: (targets, width).

    ``progress`` is called with the number of newly finished rows.
    """
    room = room_for(bound.backbone, injection)
    items = [bound.dev_example(row, room) for row in rows]
    return items, states_of(bound.backbone, injection, [i.example for i in items], progress)
