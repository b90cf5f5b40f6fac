"""InSPEcT: hidden states of a prompt, put into a text that asks what they stand for.

Ramati, Gottesman and Geva 2024, arXiv:2410.11660. The virtual tokens are run alone; what enters a
layer for them takes the place of as many tokens of a describing text, at the same layer or at the
lowest, and the model goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.run.examples import keys_and_values, lower_states
from foreword.backbone.run.layers import LayerRange
from foreword.engine.climb import climb
from foreword.errors import UserError
from foreword.explanation.candidates import Candidate, Opening, written
from foreword.explanation.pieces import virtual_of
from foreword.injection import KV, NOTHING, Injection

BEFORE = (
    "translate: say the same in another language\n"
    "summarize: say the same in fewer words\n"
    "spell: name the letters of the word\n"
)
"""The describing text in front of the states, and what stands behind them."""

AFTER = ":"

PLACEHOLDER = " x"

LAYERS = 4
"""How many layers states are taken from, spread over all."""


def inspect(
    backbone: Backbone,
    injection: Injection,
    samples: int,
    seed: int,
    texts: tuple[str, str] = (BEFORE, AFTER),
) -> list[Candidate]:
    """Let the model say what a prompt's states stand for; raises UserError where it cannot.

    States of each chosen layer go to the lowest layer and to their own, ``samples`` texts each.
    """
    count = virtual_of(injection)
    if not count:
        raise UserError("keys and values have no hidden states that could be put elsewhere")
    if not backbone.can_generate:
        raise UserError(f"a model of kind {backbone.architecture} writes no texts")
    openings = []
    for layer, states in _states(backbone, injection, count):
        for target in dict.fromkeys((0, layer)):
            ids, under = patched(backbone, states, target, texts)
            source = f"layer {layer} put into layer {target}"
            openings.append(Opening(ids, under, source, seed + layer))
    return written(backbone, openings, "inspect", samples)


def _states(backbone: Backbone, injection: Injection, count: int) -> Iterator[tuple[int, Tensor]]:
    """Yield some layers, and the states of the virtual tokens that enter them: (n, width)."""
    assert injection.embeds is not None
    yield 0, injection.embeds
    if backbone.has_two_stacks or not backbone.can_skip_lower_layers(count):
        return
    assert backbone.stack is not None
    depth = len(backbone.stack.layers)
    chosen = {round(depth * n / LAYERS) for n in range(1, LAYERS)} - {0}
    ids = tuple(range(backbone.vocabulary, backbone.vocabulary + count))
    row = Example(ids, count, ((),), ((0, -1),))
    alone = Injection(embeds=injection.embeds)
    for given in climb(backbone, alone, [row]):
        if given.layer in chosen:
            yield given.layer, torch.cat([given.lead, given.rows[0]])


@torch.no_grad()
def patched(
    backbone: Backbone, states: Tensor, layer: int, texts: tuple[str, str] = (BEFORE, AFTER)
) -> tuple[list[int], Injection]:
    """Return the describing text with states (n, width) in it at a layer, ready to go on from.

    What enters the layer at the placeholders' positions is the states; below it the placeholders
    are themselves. Returns the ids to go on from, and the injection under which they are read.
    """
    first = list(backbone.text.around[0])
    before, after = (backbone.text.ids(text) for text in texts)
    if layer == 0:
        virtual = range(backbone.vocabulary, backbone.vocabulary + len(states))
        return [*first, *before, *virtual, *after], Injection(embeds=states)
    ids = [*first, *before, *_placeholders(backbone, len(states)), *after]
    row = Example(tuple(ids), len(ids), ((),), ((0, -1),))
    _, (entering,) = lower_states(
        backbone, [row], NOTHING, 0, LayerRange(last=layer), pack=backbone.can_pack
    )
    start = len(first) + len(before)
    entering = entering.clone()
    entering[start : start + len(states)] = states.to(entering)
    given = LayerRange(layer, (entering[:0].to(backbone.device), entering.to(backbone.device)))
    kv = {**backbone.kv(ids), **keys_and_values(backbone, ids, NOTHING, given)}
    read = {site: KV(own.keys[:, :-1], own.values[:, :-1]) for site, own in kv.items()}
    positions = len(ids) - 1 if backbone.positions_follow_prefix else 0
    return ids[-1:], replace(NOTHING, kv=read, positions=positions)


def _placeholders(backbone: Backbone, count: int) -> Sequence[int]:
    own = backbone.text.ids(PLACEHOLDER)
    return (own * count)[:count]
