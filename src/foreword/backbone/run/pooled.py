"""Pooled states: what an encoder gives for a whole row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foreword.backbone.example import POOLED, Batch
from foreword.backbone.run.network import Network
from foreword.backbone.run.single_stack import Read
from foreword.errors import UserError


def states_at(network: Network, laid: Batch, read: Read) -> Tensor:
    """Return the states at the targets of a batch, pooled ones where rows are named: (N, width)."""
    whole = [number for number, (_, token) in enumerate(laid.places) if token == POOLED]
    if not whole:
        return read.at(laid.places)
    if len(whole) == len(laid.places):
        return _pooled(network, laid, read, [line for line, _ in laid.places])
    found = read.at([(line, max(token, 0)) for line, token in laid.places])
    pooled = _pooled(network, laid, read, [laid.places[number][0] for number in whole])
    return found.index_copy(0, torch.tensor(whole, device=found.device), pooled)


def _pooled(network: Network, laid: Batch, read: Read, lines: Sequence[int]) -> Tensor:
    """Return the pooled states of lines: (lines, width)."""
    assert network.pooling is not None, "only an encoder has pooled states"
    mode = network.pooling.mode
    if mode in ("mean", "weightedmean"):
        return network.features(_means(network, laid, read, lines, weighted=mode != "mean"))
    ends = [(line, 0 if mode == "cls" else read.sizes[line] - 1) for line in lines]
    return network.features(read.at(ends))


def _means(
    network: Network, laid: Batch, read: Read, lines: Sequence[int], *, weighted: bool
) -> Tensor:
    """Return the mean state of each line's real tokens; virtual ones do not count."""
    index: list[int] = []
    sizes: list[int] = []
    for line in lines:
        tokens, start = laid.lines[line].tokens, read.starts[line]
        own = [start + n for n, token in enumerate(tokens) if token < network.vocabulary]
        if not own:
            raise UserError("a row has no tokens but virtual ones, of which an encoder has no mean")
        index += own
        sizes.append(len(own))
    states = read.hidden[torch.tensor(index, device=read.hidden.device)]
    parts = torch.split(states, sizes)
    if not weighted:
        return torch.stack([part.mean(0) for part in parts])
    return torch.stack([_weights(part) @ part for part in parts])


def _weights(states: Tensor) -> Tensor:
    """Return weights of states (n, width), in the ratios 1 : 2 : ... : n, whose sum is 1: (n,).

    Half precision cannot count that far, so it only holds the result.
    """
    single = torch.promote_types(states.dtype, torch.float32)
    counted = torch.arange(1, len(states) + 1, dtype=single, device=states.device)
    return (counted / counted.sum()).to(states.dtype)
