"""Running a model of one stack: its rows packed end to end, or padded where that is not exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.attention.interface import Recorder
from foreword.backbone.attention.masks import ancestors, padding, shifted
from foreword.backbone.attention.packing import pack, packed_order
from foreword.backbone.example import Line, depths
from foreword.backbone.run import inputs as layout
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.injection import Mixture

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone


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


def packed(
    backbone: Backbone,
    laid: Sequence[Line],
    mixture: Mixture,
    lead: Sequence[int] = (),
    cut: LayerRange = WHOLE,
) -> Read:
    """Run lines as one row of tokens, after ``lead`` tokens which all of them see.

    The leading virtual tokens of a single injection are part of that lead; under several, each
    line has its own.
    """
    own, leads = [list(line.tokens) for line in laid], [0] * len(laid)
    if len(mixture.parts) == 1:
        lead = [*layout.virtual(backbone, mixture.parts[0].leading), *lead]
    else:
        own, leads = layout.with_lead(backbone, own, mixture)
    order = packed_order([len(row) for row in own])
    mixture = replace(mixture, rows=[mixture.rows[row] for row in order])
    carried, offsets = backbone.pass_context(mixture)
    trees = [shifted(laid[row], leads[row]) for row in order]
    plain = all(line.parents is None for line in laid)
    sizes = [len(own[row]) for row in order]
    here = backbone.device
    packing = pack(sizes, len(lead), None if plain else trees, here, backbone.dtype)
    starts = [0] * len(laid)
    first = min(offsets)
    ids, positions = [*lead], [*range(first, first + len(lead))]
    parts = [mixture.rows[0]] * len(lead)
    for row, offset, part, tree in zip(order, offsets, mixture.rows, trees, strict=True):
        starts[row] = len(ids) + leads[row]
        ids += own[row]
        positions += [offset + len(lead) + depth for depth in depths(tree)]
        parts += [part] * len(own[row])
    inputs: dict[str, Any] = layout.inputs(
        backbone, torch.tensor([ids]), torch.tensor([parts]), mixture
    )
    inputs["position_ids"] = backbone.to_device(torch.tensor([positions]))
    # Of four dimensions, so that no model builds its own mask; attention goes by the packing.
    inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=here)
    inputs["foreword"] = replace(carried, packing=packing)
    states = None
    if cut.given:
        states = torch.cat([cut.given[0], *(cut.given[1 + row] for row in order)])[None]
    hidden = _run(backbone, inputs, cut, states)[0]  # (N, width)
    return Read(hidden, starts, [len(line.tokens) for line in laid], len(lead))


def padded(
    backbone: Backbone,
    laid: Sequence[Line],
    mixture: Mixture,
    cut: LayerRange = WHOLE,
    record: Recorder | None = None,
) -> Read:
    """Run lines side by side, padded on the right to the longest."""
    rows, leads = layout.with_lead(backbone, [line.tokens for line in laid], mixture)
    carried, offsets = backbone.pass_context(mixture)
    here = backbone.device
    parts = torch.tensor(list(mixture.rows))[:, None]
    inputs: dict[str, Any] = layout.inputs(backbone, layout.padded(backbone, rows), parts, mixture)
    length = max(map(len, rows))
    if backbone.architecture == "masked":
        inputs["attention_mask"] = padding(rows, length).to(here)
    elif any(line.parents is not None for line in laid):
        trees = [shifted(line, lead) for line, lead in zip(laid, leads, strict=True)]
        inputs["attention_mask"] = ancestors(trees, length).to(here)
        positions = [
            [offset + depth for depth in depths(tree)]
            for offset, tree in zip(offsets, trees, strict=True)
        ]
        inputs["position_ids"] = pad_sequence(
            [torch.tensor(p) for p in positions], batch_first=True
        ).to(here)
    elif "position_ids" in backbone.accepted:
        count = torch.arange(length, device=here)
        if len(set(offsets)) == 1:
            inputs["position_ids"] = (count + offsets[0])[None].expand(len(rows), -1)
        else:
            inputs["position_ids"] = count + torch.tensor(offsets, device=here)[:, None]
    if backbone.sites:
        inputs["foreword"] = replace(carried, record=record)
    states = None
    if cut.given:
        states = pad_sequence(list(cut.given[1:]), batch_first=True)
    hidden = _run(backbone, inputs, cut, states)  # (B, T, width)
    starts = [row * length + lead for row, lead in enumerate(leads)]
    return Read(hidden.flatten(0, 1), starts, [len(line.tokens) for line in laid])


def _run(
    backbone: Backbone, inputs: dict[str, Any], cut: LayerRange, states: Tensor | None
) -> Tensor:
    if "use_cache" in backbone.accepted:
        inputs["use_cache"] = False
    if backbone.stack is None:
        return backbone.model.base_model(**inputs).last_hidden_state  # type: ignore[no-any-return]
    return backbone.stack.run(inputs, cut, states)
