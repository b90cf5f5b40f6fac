"""Running a model of one stack: its rows packed end to end, or padded where that is not exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.attention.interface import Recorder
from foreword.backbone.attention.masks import padding, shift_parents
from foreword.backbone.attention.packing import pack, packed_order
from foreword.backbone.attention.watch import Watch
from foreword.backbone.example import Line, depths
from foreword.backbone.run.inputs import model_inputs, pad_right, virtual, with_leading
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.backbone.run.network import Network
from foreword.injection import Mixture


@dataclass(frozen=True, eq=False)
class Read:
    """Hidden states of a batch of lines, however it was laid out.

    ``starts`` holds the place of each line's first token among all N, ``sizes`` the tokens of
    each. The first ``lead`` of the N are those of a lead that was run apart.
    """

    hidden: Tensor  # (N, width)
    starts: list[int]
    sizes: list[int]
    lead: int = 0

    def of(self, line: int) -> Tensor:
        """Return the states of a line's tokens: (tokens, width)."""
        return self.hidden[self.starts[line] : self.starts[line] + self.sizes[line]]

    def at(self, places: Sequence[tuple[int, int]]) -> Tensor:
        """Return the states of tokens, each given as (line, token): (places, width)."""
        index = [self.starts[line] + token for line, token in places]
        return self.hidden[torch.tensor(index, dtype=torch.long, device=self.hidden.device)]


def run_packed(
    network: Network,
    laid: Sequence[Line],
    mixture: Mixture,
    lead: Sequence[int] = (),
    layers: LayerRange = WHOLE,
) -> Read:
    """Run lines as one row of tokens, after ``lead`` tokens which all of them see.

    The leading virtual tokens of a single injection are part of that lead; under several, each
    line has its own.
    """
    own, counts = [list(line.tokens) for line in laid], [0] * len(laid)
    if len(mixture.parts) == 1:
        lead = [*virtual(network, mixture.parts[0].leading), *lead]
    else:
        own, counts = with_leading(network, own, mixture)
    order = packed_order([len(row) for row in own])
    mixture = replace(mixture, rows=[mixture.rows[row] for row in order])
    context, offsets = network.pass_context(mixture)
    trees = [shift_parents(laid[row], counts[row]) for row in order]
    plain = all(line.parents is None for line in laid)
    sizes = [len(own[row]) for row in order]
    here = network.device
    packing = pack(sizes, len(lead), None if plain else trees, here, network.dtype)
    starts = [0] * len(laid)
    first = min(offsets)
    ids, positions = [*lead], [*range(first, first + len(lead))]
    parts = [mixture.rows[0]] * len(lead)
    for row, offset, part, tree in zip(order, offsets, mixture.rows, trees, strict=True):
        starts[row] = len(ids) + counts[row]
        ids += own[row]
        positions += [offset + len(lead) + depth for depth in depths(tree)]
        parts += [part] * len(own[row])
    inputs: dict[str, Any] = model_inputs(
        network, torch.tensor([ids]), torch.tensor([parts]), mixture
    )
    inputs["position_ids"] = network.to_device(torch.tensor([positions]))
    # Of four dimensions, so that no model builds its own mask; attention goes by the packing.
    inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=here)
    inputs["foreword"] = replace(context, packing=packing)
    states = None
    if layers.given:
        states = torch.cat([layers.given[0], *(layers.given[1 + row] for row in order)])[None]
    hidden = run_layers(network, inputs, layers, states)[0]  # (N, width)
    return Read(hidden, starts, [len(line.tokens) for line in laid], len(lead))


def run_padded(
    network: Network,
    laid: Sequence[Line],
    mixture: Mixture,
    layers: LayerRange = WHOLE,
    record: Recorder | None = None,
    watch: Watch | None = None,
) -> Read:
    """Run lines side by side, padded on the right to the longest."""
    rows, counts = with_leading(network, [line.tokens for line in laid], mixture)
    context, offsets = network.pass_context(mixture)
    here = network.device
    parts = torch.tensor(list(mixture.rows))[:, None]
    inputs: dict[str, Any] = model_inputs(network, pad_right(network, rows), parts, mixture)
    length = max(map(len, rows))
    if not network.is_causal:
        inputs["attention_mask"] = padding(rows, length).to(here)
    elif "position_ids" in network.accepted:
        steps = torch.arange(length, device=here)
        if len(set(offsets)) == 1:
            inputs["position_ids"] = (steps + offsets[0])[None].expand(len(rows), -1)
        else:
            inputs["position_ids"] = steps + torch.tensor(offsets, device=here)[:, None]
    if network.sites:
        inputs["foreword"] = replace(context, record=record, watch=watch)
    states = None
    if layers.given:
        states = pad_sequence(list(layers.given[1:]), batch_first=True)
    hidden = run_layers(network, inputs, layers, states)  # (B, T, width)
    starts = [row * length + count for row, count in enumerate(counts)]
    return Read(hidden.flatten(0, 1), starts, [len(line.tokens) for line in laid])


def run_layers(
    network: Network, inputs: dict[str, Any], layers: LayerRange, states: Tensor | None
) -> Tensor:
    """Run a model of one stack on its inputs: (B, T, width)."""
    if "use_cache" in network.accepted:
        inputs["use_cache"] = False
    if network.stack is None:
        return network.model.base_model(**inputs).last_hidden_state  # type: ignore[no-any-return]
    return network.stack.run(inputs, layers, states)
