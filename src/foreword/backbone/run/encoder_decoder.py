"""Running an encoder-decoder: every branch is a decoder row over its example's encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.attention.interface import PassContext, Recorder
from foreword.backbone.attention.masks import padding
from foreword.backbone.attention.watch import Watch
from foreword.backbone.example import Example
from foreword.backbone.run.inputs import model_inputs, pad_right, with_leading
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.backbone.run.network import Network
from foreword.errors import UserError
from foreword.injection import Mixture


def encode(
    network: Network,
    rows: Sequence[Sequence[int]],
    mixture: Mixture,
    context: PassContext,
    layers: LayerRange = WHOLE,
) -> tuple[Tensor, Tensor]:
    """Run the encoder, or a part of it: states (B, S, width) and mask (B, S)."""
    rows, _ = with_leading(network, rows, mixture)
    mask = padding(rows, max(map(len, rows))).to(network.device)
    parts = torch.tensor(list(mixture.rows))[:, None]
    inputs = model_inputs(network, pad_right(network, rows), parts, mixture)
    passed = {**inputs, "attention_mask": mask, **_extra(network, context)}
    if network.stack is None:
        encoder = cast(nn.Module, network.model.get_encoder())
        return encoder(**passed).last_hidden_state, mask
    given = pad_sequence(list(layers.given[1:]), batch_first=True) if layers.given else None
    return network.stack.run(passed, layers, given), mask


def states(
    network: Network,
    examples: Sequence[Example],
    mixture: Mixture,
    record: Recorder | None = None,
    start: int | None = None,
    layers: LayerRange = WHOLE,
    watch: Watch | None = None,
) -> Tensor:
    """Run encoder and decoder; return the decoder's states at the targets: (N, width).

    ``layers`` is of the encoder.
    """
    context = replace(network.pass_context(mixture)[0], record=record, watch=watch)
    encoded, mask = encode(network, [e.ids for e in examples], mixture, context, layers)
    first = decoder_start(network) if start is None else start
    rows = [[first, *branch] for example in examples for branch in example.branches]
    owners = [n for n, example in enumerate(examples) for _ in example.branches]
    index = torch.tensor(owners, device=network.device)
    if context.rows is not None:
        context = replace(context, rows=context.rows[index])
    decoder = cast(nn.Module, network.model.get_decoder())  # type: ignore[no-untyped-call]
    hidden: Tensor = decoder(
        input_ids=network.to_device(pad_right(network, rows)),
        encoder_hidden_states=encoded[index],
        encoder_attention_mask=mask[index],
        use_cache=False,
        **_extra(network, context),
    ).last_hidden_state
    offsets = [0]
    for example in examples:
        offsets.append(offsets[-1] + len(example.branches))
    places = [
        (offsets[n] + b, 1 + j) for n, example in enumerate(examples) for b, j in example.targets
    ]
    row, column = torch.tensor(places, device=network.device, dtype=torch.long).reshape(-1, 2).T
    return hidden[row, column]


def decoder_start(network: Network) -> int:
    """Return the token with which the decoder starts; raises UserError where none is set."""
    found = getattr(network.model.config, "decoder_start_token_id", None)
    if found is None:
        found = getattr(network.model.generation_config, "decoder_start_token_id", None)
    if found is None:
        found = _start_of_labels(network)
    if found is None:
        raise UserError(f"{network.name}: its configuration has no decoder_start_token_id")
    if not 0 <= int(found) < network.scored:
        raise UserError(
            f"{network.name}: decoder_start_token_id is {found}, and the model knows "
            f"{network.scored} tokens"
        )
    return int(found)


def _start_of_labels(network: Network) -> int | None:
    """Return what the model puts before any text that it is to learn (T5Gemma); None if nothing."""
    shift: Any = getattr(network.model, "prepare_decoder_input_ids_from_labels", None)
    try:
        first, other = shift(labels=torch.tensor([[3, 4], [5, 6]], device=network.device))[:, 0]
    except Exception:  # of any kind: the model's code is another's
        return None
    return int(first) if first == other else None  # mBART goes by the text's language


def _extra(network: Network, context: PassContext) -> dict[str, PassContext]:
    """The keyword that hands the injection down, for a model that knows it."""
    return {"foreword": context} if network.sites else {}
