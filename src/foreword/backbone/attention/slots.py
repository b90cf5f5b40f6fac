"""Attention over slots: rows that go on from keys and values which stand in memory already.

Rows of many lengths and prompts lie end to end in one pass, as in training. A module writes the
keys and values of their new tokens into its slots, and attends: rows of one new token side by side,
block by block; rows that read more, one by one; and a prefix that several rows share once for all
of them. The parts of a softmax are merged by their log-sum-exps (``shared_prefix.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from foreword.injection import KV

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class Scores(Protocol):
    """How a model changes its scores: a soft cap, and sinks (Hq,)."""

    @property
    def cap(self) -> float | None:
        """The soft cap."""

    @property
    def sinks(self) -> Tensor | None:
        """The score of each head's sink."""

    def apply_cap(self, scores: Tensor) -> Tensor:
        """Apply the soft cap to scores."""


@dataclass(frozen=True, eq=False)
class SiteSlots:
    """The slots of one attention module, token by token; ``window`` is that of the module."""

    name: str
    keys: Tensor  # (room, H, D)
    values: Tensor  # (room, H, D')
    window: int | None


Masks = Mapping[int | None, Tensor | None]
"""What is added to scores, by a module's window; None where each token sees all before it."""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one new token each, in slots side by side: the tokens ``start`` to ``stop``.

    The slots begin at ``first`` and have room for ``room`` tokens, of which ``length`` are read.
    ``places`` (stop - start,) are those of the tokens among the ``rows`` slots, None for all.
    """

    start: int
    stop: int
    first: int
    rows: int
    room: int
    length: int
    places: Tensor | None
    masks: Masks  # (rows, 1, 1, length)


@dataclass(frozen=True, eq=False)
class Span:
    """A row of several new tokens, ``start`` to ``stop``, whose slot begins at ``first``."""

    start: int
    stop: int
    first: int
    length: int
    masks: Masks  # (1, 1, T, length)


@dataclass(frozen=True, eq=False)
class PrefixOf:
    """A prefix by the names of modules, and the tokens (n,) that see it."""

    kv: Mapping[str, KV]
    tokens: Tensor


@dataclass(frozen=True, eq=False)
class SlotPass:
    """One pass over slots. ``written`` (N,) is where the keys and values of each token go."""

    sites: Mapping[nn.Module, SiteSlots]
    written: Tensor
    blocks: Sequence[Block]
    spans: Sequence[Span]
    prefixes: Sequence[PrefixOf]

    def attend(
        self,
        module: nn.Module,
        query: Tensor,  # (N, Hq, D)
        key: Tensor,  # (N, H, D)
        value: Tensor,  # (N, H, D')
        scale: float,
        scores: Scores,
    ) -> Tensor:
        """Attend to the slots, and to the prefixes that are no part of them: (N, Hq, D')."""
        site = self.sites[module]
        site.keys.index_copy_(0, self.written, key)
        site.values.index_copy_(0, self.written, value)
        heads, own = query.shape[1], key.shape[1]
        outs, sums = [], []
        for block in self.blocks:
            seen = slice(block.first, block.first + block.rows * block.room)
            k, v = (
                held[seen].view(block.rows, block.room, *held.shape[1:])[:, : block.length]
                for held in (site.keys, site.values)
            )
            q = query[block.start : block.stop]
            if block.places is not None:
                q = q.new_zeros(block.rows, *q.shape[1:]).index_copy_(0, block.places, q)
            q = q.reshape(block.rows, own, heads // own, q.shape[2])  # by key heads
            mask = block.masks[site.window]
            out, lse = _part(q, k.transpose(1, 2), v.transpose(1, 2), mask, scale, scores)
            out, lse = out.reshape(block.rows, heads, -1), lse.reshape(block.rows, heads)
            if block.places is not None:
                out, lse = out[block.places], lse[block.places]
            outs.append(out)
            sums.append(lse)
        for span in self.spans:
            seen = slice(span.first, span.first + span.length)
            k, v = (held[seen].transpose(0, 1)[None] for held in (site.keys, site.values))
            q = query[span.start : span.stop].transpose(0, 1)[None]
            out, lse = _part(q, k, v, span.masks[site.window], scale, scores, causal=True)
            outs.append(out[0].transpose(0, 1))
            sums.append(lse[0].T)
        out, lse = torch.cat(outs), torch.cat(sums)
        self._merge_prefixes(site, query, own, out, lse, scale, scores)
        if scores.sinks is not None:
            out = out * torch.sigmoid(lse - scores.sinks)[..., None].to(out.dtype)
        return out

    def _merge_prefixes(
        self,
        site: SiteSlots,
        query: Tensor,
        own: int,
        out: Tensor,
        lse: Tensor,
        scale: float,
        scores: Scores,
    ) -> None:
        """Add what the prefixes bring to ``out`` and ``lse``, in place."""
        tokens, outs, sums = [], [], []
        for prefix in self.prefixes:
            kv = prefix.kv.get(site.name)
            if kv is None or not kv.keys.shape[1]:
                continue
            count, heads, width = len(prefix.tokens), query.shape[1], query.shape[2]
            q = query[prefix.tokens].view(count, own, heads // own, width).transpose(0, 1)
            q = q.reshape(1, own, count * heads // own, width)
            part, part_lse = _part(q, kv.keys[None], kv.values[None], None, scale, scores)
            part = part.view(own, count, heads // own, -1).transpose(0, 1)
            outs.append(part.reshape(count, heads, -1))
            sums.append(part_lse.view(own, count, -1).transpose(0, 1).reshape(count, heads))
            tokens.append(prefix.tokens)
        if tokens:
            at, before, before_lse = torch.cat(tokens), torch.cat(outs), torch.cat(sums)
            weight = torch.sigmoid(before_lse - lse[at])[..., None].to(out.dtype)
            out[at] = torch.lerp(out[at], before, weight)
            lse[at] = torch.logaddexp(before_lse, lse[at])


def _part(
    query: Tensor,  # (B, Hq, T, D)
    key: Tensor,  # (B, H, S, D)
    value: Tensor,  # (B, H, S, D')
    mask: Tensor | None,  # additive, of four dimensions
    scale: float,
    scores: Scores,
    *,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return one part of a softmax and its log-sum-exp: (B, Hq, T, D'), (B, Hq, T).

    Without a mask a ``causal`` part, whose queries are as many as its keys, sees each one's past.
    """
    batch, heads, length, _ = query.shape
    causal = causal and mask is None
    if query.device.type == "cpu" and scores.cap is None and key.shape[3] == value.shape[3]:
        if mask is not None:
            mask = mask.expand(batch, 1, length, key.shape[2])
        out, lse = _flash(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
        return out, lse
    own = key.shape[1]
    q = query.reshape(batch, own, heads // own, length, query.shape[3])
    weights = scores.apply_cap((q @ key[:, :, None].transpose(3, 4)) * scale).float()
    if causal:
        past = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        weights = weights.masked_fill(~past, -torch.inf)
    elif mask is not None:
        weights = weights + mask[:, :, None]
    lse = weights.logsumexp(4)
    out = (weights - lse[..., None]).exp().to(value.dtype) @ value[:, :, None]
    return out.reshape(batch, heads, length, -1), lse.reshape(batch, heads, length)
