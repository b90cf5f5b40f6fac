"""Reading ahead: a text, or a part of one, as keys and values that stand in front of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foreword.backbone.backbone import Backbone
from foreword.injection import NOTHING, Injection


def read_ahead(backbone: Backbone, ids: Sequence[int], room: int) -> Injection | None:
    """Return the keys and values of a text; past a sliding window, those that begin a row's view.

    ``room`` is the most tokens that come after it. None where the model has none, or none that
    stand for all that it has read.
    """
    found = backbone.prefill(NOTHING, ids, len(ids) + room)
    if found is not None or backbone.window is None or not backbone.can_prefill:
        return found
    with torch.no_grad():
        kv = {name: backbone.sites[name].kept(each) for name, each in backbone.kv(ids).items()}
    return Injection(kv=kv, positions=len(ids))
