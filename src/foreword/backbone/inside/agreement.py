"""Whether two ways to compute one thing come to the same, but for how their numbers round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foreword.backbone.inside.hooks import own_passes

EXACT = (torch.float32, torch.float64)
"""Types that round so little that a difference tells more than they do."""

NUDGES = (-2, -1, 1, 2)
"""By how many roundings of their type embeddings are moved, up and down in turn."""


def agree(one: Tensor, other: Tensor) -> bool:
    """Tell whether two results of one computation are the same but for rounding."""
    bound = 1e-3 if one.dtype in EXACT else 5e-2
    return bool((one - other).abs().max() <= bound * one.abs().max())


@torch.no_grad()
def states_agree(model: PreTrainedModel, plain: Callable[[], Tensor], found: Tensor) -> bool:
    """Tell whether a model's last states, ``found`` in another way, are the ``plain`` ones.

    Both are (N, width). In half types a deep model can turn the rounding of one number into a
    quarter of a state. So where they are further apart than usual, embeddings are moved by as much
    as they round, and what that does to a state is allowed twice, up to half of its largest number.
    """
    own = plain()
    if agree(own, found):
        return True
    if own.dtype in EXACT:
        return False
    moved = torch.zeros(len(own), device=own.device)
    for roundings in NUDGES:
        with _nudged(model, roundings):
            moved = torch.maximum(moved, _apart(plain(), own))
    most = own.abs().amax(1).float() / 2
    return bool((_apart(found, own) <= torch.minimum(2 * moved, most)).all())


def _apart(one: Tensor, other: Tensor) -> Tensor:
    return (one.float() - other.float()).abs().amax(1)


@contextmanager
def _nudged(model: PreTrainedModel, roundings: int) -> Iterator[None]:
    """Let this thread's passes read embeddings that are so many roundings larger or smaller."""

    def nudge(module: object, inputs: object, embedded: Tensor) -> Tensor:
        by = roundings * torch.finfo(embedded.dtype).eps
        signs = 1 - 2 * (torch.arange(embedded.shape[-1], device=embedded.device) % 2)
        return embedded * (1 + by * signs).to(embedded.dtype)

    hook = model.get_input_embeddings().register_forward_hook(own_passes(nudge))
    try:
        yield
    finally:
        hook.remove()
