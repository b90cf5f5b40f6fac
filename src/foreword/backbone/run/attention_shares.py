"""Attention on a prompt: the share that each head of each attention module pays to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foreword.backbone.attention.masks import padding
from foreword.backbone.attention.watch import Watch
from foreword.backbone.example import Example, Line
from foreword.backbone.run import encoder_decoder, single_stack
from foreword.backbone.run.inputs import pad_right, with_leading
from foreword.backbone.run.network import Network
from foreword.injection import Injection, Mixture


@torch.no_grad()
def attention_shares(
    network: Network, examples: Sequence[Example], injection: Injection
) -> dict[str, tuple[Tensor, int]]:
    """Return, for each attention site, the sum of its heads' shares (Hq,), and of how many tokens.

    The tokens are those of the examples, each with its first branch; virtual ones do not count. The
    prompt is the injection's keys and values, and all virtual tokens.
    """
    mixture = Mixture((injection,), (0,) * len(examples))
    branches = [example.branches[0] for example in examples]
    if network.has_two_stacks:
        rows, _ = with_leading(network, [example.ids for example in examples], mixture)
        decoded = [(0, *branch) for branch in branches]  # the start token counts too
    else:
        parts = [(e.ids[: e.slot], e.ids[e.slot :]) for e in examples]
        laid = [Line((*a, *b, *z)) for (a, z), b in zip(parts, branches, strict=True)]
        rows, _ = with_leading(network, [line.tokens for line in laid], mixture)
        decoded = [tuple(row) for row in rows]
    virtual, real = _marks(network, rows)
    own_virtual, own_real = _marks(network, decoded)
    keys = {"self": own_virtual, "encoder": virtual, "cross": virtual}
    queries = {"self": own_real, "encoder": real, "cross": own_real}
    sites = {site.module: site for site in network.sites.values()}
    found: dict[str, tuple[Tensor, int]] = {}

    def hear(module: nn.Module, shares: Tensor) -> None:
        site = sites[module]
        counted = queries[site.role].to(shares.device)
        total = (shares.float() * counted[..., None]).sum((0, 1))
        before, count = found.get(site.name, (torch.zeros_like(total), 0))
        found[site.name] = before + total, count + int(counted.sum())

    watch = Watch(lambda module: keys[sites[module].role], hear)
    if network.has_two_stacks:
        one = [Example(e.ids, e.slot, (e.branches[0],), ()) for e in examples]
        encoder_decoder.states(network, one, mixture, watch=watch)
    else:
        single_stack.run_padded(network, laid, mixture, watch=watch)
    return found


def _marks(network: Network, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return which tokens of padded rows are virtual, and which are real: (B, T) of 0 and 1."""
    ids = pad_right(network, rows)
    virtual = ids >= network.vocabulary
    return virtual.float(), (padding(rows, ids.shape[1]).bool() & ~virtual).float()
