"""Running an encoder-decoder: every branch is a decoder row over its example's encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.attention.interface import PassContext, Recorder
from foreword.backbone.attention.masks import padding
from foreword.backbone.example import Example
from foreword.backbone.run import inputs as layout
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.errors import UserError
from foreword.injection import Mixture

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone


def encode(
    backbone: Backbone,
    rows: Sequence[Sequence[int]],
    mixture: Mixture,
    carried: PassContext,
    cut: LayerRange = WHOLE,
) -> tuple[Tensor, Tensor]:
    """Run the encoder, or a part of it: states (B, S, width) and mask (B, S)."""
    led, _ = layout.with_lead(backbone, rows, mixture)
    mask = padding(led, max(map(len, led))).to(backbone.device)
    parts = torch.tensor(list(mixture.rows))[:, None]
    inputs = layout.inputs(backbone, layout.padded(backbone, led), parts, mixture)
    passed = {**inputs, "attention_mask": mask, **_extra(backbone, carried)}
    if backbone.stack is None:
        encoder = cast(nn.Module, backbone.model.get_encoder())
        return encoder(**passed).last_hidden_state, mask
    given = pad_sequence(list(cut.given[1:]), batch_first=True) if cut.given else None
    return backbone.stack.run(passed, cut, given), mask


def read(
    backbone: Backbone,
    examples: Sequence[Example],
    mixture: Mixture,
    record: Recorder | None = None,
    start: int | None = None,
    cut: LayerRange = WHOLE,
) -> Tensor:
    """Run encoder and decoder; return the decoder's states at the targets: (N, width).

    ``cut`` is of the encoder.
    """
    carried = replace(backbone.pass_context(mixture)[0], record=record)
    encoded, mask = encode(backbone, [e.ids for e in examples], mixture, carried, cut)
    first = decoder_start(backbone) if start is None else start
    rows = [[first, *branch] for example in examples for branch in example.branches]
    owners = [n for n, example in enumerate(examples) for _ in example.branches]
    index = torch.tensor(owners, device=backbone.device)
    if carried.rows is not None:
        carried = replace(carried, rows=carried.rows[index])
    decoder = cast(nn.Module, backbone.model.get_decoder())  # type: ignore[no-untyped-call]
    hidden: Tensor = decoder(
        input_ids=backbone.to_device(layout.padded(backbone, rows)),
        encoder_hidden_states=encoded[index],
        encoder_attention_mask=mask[index],
        use_cache=False,
        **_extra(backbone, carried),
    ).last_hidden_state
    offsets = [0]
    for example in examples:
        offsets.append(offsets[-1] + len(example.branches))
    places = [
        (offsets[n] + b, 1 + j) for n, example in enumerate(examples) for b, j in example.targets
    ]
    row, column = torch.tensor(places, device=backbone.device, dtype=torch.long).reshape(-1, 2).T
    return hidden[row, column]


def decoder_start(backbone: Backbone) -> int:
    """Return the token with which the decoder starts; raises UserError where none is set."""
    found = getattr(backbone.model.config, "decoder_start_token_id", None)
    if found is None:
        found = getattr(backbone.model.generation_config, "decoder_start_token_id", None)
    if found is None:
        raise UserError(f"{backbone.name}: its configuration has no decoder_start_token_id")
    return int(found)


def _extra(backbone: Backbone, carried: PassContext) -> dict[str, PassContext]:
    """The keyword that hands the injection down, for a model that knows it."""
    return {"foreword": carried} if backbone.sites else {}
