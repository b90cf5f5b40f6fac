"""Rows of ids as a model takes them: virtual tokens in front, padding, embeddings where needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.run.network import Network
from foreword.errors import UserError
from foreword.injection import Mixture


def virtual(network: Network, count: int) -> range:
    """Return the ids of the first ``count`` virtual tokens."""
    return range(network.vocabulary, network.vocabulary + count)


def with_leading(
    network: Network, rows: Sequence[Sequence[int]], mixture: Mixture
) -> tuple[list[list[int]], list[int]]:
    """Write each row's leading virtual tokens before it; return the rows and the counts."""
    counts = [mixture.parts[row].leading for row in mixture.rows]
    made = [[*virtual(network, count), *row] for count, row in zip(counts, rows, strict=True)]
    return made, counts


def pad_right(network: Network, rows: Sequence[Sequence[int]]) -> Tensor:
    """Pad rows of ids on the right: (B, T), on the CPU."""
    return pad_sequence(
        [torch.tensor(list(row), dtype=torch.long) for row in rows],
        batch_first=True,
        padding_value=network.pad,
    )


def model_inputs(
    network: Network, ids: Tensor, parts: Tensor, mixture: Mixture
) -> dict[str, Tensor]:
    """Return ids as the model takes them, embedded here where any is of a virtual token.

    ``ids`` is (B, T); ``parts``, (B, T) or (B, 1), says which part of the mixture each token is
    under. Both are on the CPU, so that reading them does not wait for a GPU.

    Raises UserError for a virtual token that its part has no embedding for.
    """
    if ids.numel() and int(ids.min()) < 0:
        raise UserError(f"a row has the token {int(ids.min())}; ids count from 0")
    unreal = ids >= network.vocabulary
    if not bool(unreal.any()):
        return {"input_ids": network.to_device(ids)}
    held = torch.tensor([0 if p.embeds is None else len(p.embeds) for p in mixture.parts])
    if bool((ids - network.vocabulary >= held[parts]).any()):
        raise UserError("a row has virtual tokens that its prompt has no embeddings for")
    table = torch.cat([p.embeds for p in mixture.parts if p.embeds is not None])
    first = (held.cumsum(0) - held)[parts]
    index = (ids - network.vocabulary + first)[unreal]
    readable = network.to_device(ids.masked_fill(unreal, network.pad))
    where = network.to_device(unreal)
    real = network.embed(readable)
    made = table.to(device=real.device, dtype=real.dtype)[network.to_device(index)]
    embeds = real.masked_scatter(where[..., None], made)
    return {"inputs_embeds": embeds, **network.beside(readable, where)}


def reader(
    network: Network, parts: Tensor, mixture: Mixture
) -> Callable[[Tensor], dict[str, Tensor]] | None:
    """Return what makes :func:`model_inputs` of rows under ``parts`` (B, 1), token by token.

    None where the mixture has no virtual tokens, so that the model may read ids.
    """
    if all(part.embeds is None for part in mixture.parts):
        return None
    return lambda ids: model_inputs(network, ids.cpu(), parts, mixture)
