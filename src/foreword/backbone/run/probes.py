"""What leaves a model's result as it is: tried on a few tokens, never looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from foreword.backbone.example import Example, Line
from foreword.backbone.run import single_stack
from foreword.backbone.run.layers import LayerRange
from foreword.backbone.run.lm_head import agree
from foreword.injection import NOTHING, Mixture

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone


@torch.no_grad()
def can_prefill(backbone: Backbone) -> bool:
    """Try whether reading on after stored keys and values equals reading everything.

    True of causal models whose sites hold all that they have read; false of bidirectional
    models, and where no attention site is reached.
    """
    if backbone.architecture != "causal" or not backbone.sites:
        return False
    whole = Example((3, 1, 2, 4), 4, ((),), ((0, -1),))
    plain = backbone.states([whole])
    return agree(plain, backbone.states([whole.after(2)], backbone.folded(NOTHING, (3, 1))))


@torch.no_grad()
def can_pack(backbone: Backbone) -> bool:
    """Try whether rows may lie end to end in one row of tokens, parted by attention alone.

    True of causal transformers that take positions and have no other way from token to token.
    """
    if not backbone.positions_follow_prefix or not backbone.sites:
        return False
    rows = [Line((3, 1, 2, 4)), Line((4, 2))]
    mixture = Mixture((NOTHING,), (0, 0))
    side = single_stack.padded(backbone, rows, mixture).at([(0, 3), (1, 1)])
    end = single_stack.packed(backbone, rows, mixture).at([(0, 3), (1, 1)])
    return agree(side, end)


@torch.no_grad()
def parted(backbone: Backbone) -> bool:
    """Try whether running below a layer and then above it equals running whole."""
    rows = [Example((3, 1, 2, 4), 4, ((),), ((0, -1),)), Example((3, 4), 2, ((),), ((0, -1),))]
    if backbone.stack is None or not backbone.stack.passes(lambda: backbone.states(rows)):
        return False
    lead, states = backbone.lower_states(rows, NOTHING, 1, 1)
    given = tuple(each.to(backbone.device) for each in (lead, *states))
    return agree(backbone.states(rows), backbone.states(rows, lead=1, cut=LayerRange(1, given)))
