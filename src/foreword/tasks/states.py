"""The states of rows at the places that their task reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.injection import Injection, Mixture
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for

KEPT = 4
"""How many results are kept for each model."""

_KNOWN: WeakKeyDictionary[Backbone, dict[str, list[Tensor]]] = WeakKeyDictionary()


def states_of_rows(
    bound: Bound,
    rows: Sequence[Row],
    injection: Injection | Mixture,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[list[Encoded], list[Tensor]]:
    """Return rows as the dev score reads them, and their last hidden states: (targets, width).

    The last few results are kept: a head that is tuned again, with another seed or rate, starts by
    the same states. ``progress`` is called with the number of newly finished rows.
    """
    backbone, room = bound.backbone, room_for(bound.backbone, injection)
    items = [bound.dev_example(row, room) for row in rows]
    examples = [item.example for item in items]
    if isinstance(injection, Mixture):
        return items, states_of(backbone, injection, examples, progress)
    known, key = _KNOWN.setdefault(backbone, {}), _key(injection, examples)
    found = known.pop(key, None)
    if found is None:
        found = states_of(backbone, injection, examples, progress)
    else:
        progress(len(rows))
    known[key] = found
    while len(known) > KEPT:
        del known[next(iter(known))]
    return items, found


def _key(injection: Injection, examples: Sequence[Example]) -> str:
    """Return a hash of all that states depend on beside the model."""
    running = hashlib.sha256(repr(examples).encode())
    settings = injection.map(lambda tensor: tensor.new_zeros(()))
    running.update(repr(settings).encode())
    for name, tensor in injection.tensors():
        running.update(name.encode())
        running.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return running.hexdigest()
