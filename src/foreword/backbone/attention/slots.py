"""Attention over slots: rows that go on from keys and values which stand in memory already.

Rows of many lengths and prompts lie end to end in one pass, as in training. A module writes the
keys and values of their new tokens into its slots, and attends: rows of one new token side by side,
block by block; rows that read more, one by one; and a prefix that several rows share once for all
of them. The parts of a softmax are merged by their log-sum-exps (``shared_prefix.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreword.backbone.attention.masked import ScoreTransform, scaled
from foreword.injection import KV

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


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
        query: Tensor,  # (1, Hq, N, D)
        key: Tensor,  # (1, H, N, D)
        value: Tensor,  # (1, H, N, D')
        scale: float,
        scores: ScoreTransform,
    ) -> Tensor:
        """Attend to the slots, and to the prefixes that are no part of them: (N, Hq, D')."""
        site = self.sites[module]
        site.keys.index_copy_(0, self.written, key[0].transpose(0, 1))
        site.values.index_copy_(0, self.written, value[0].transpose(0, 1))
        heads, own = query.shape[1], key.shape[1]
        outs, sums = [], []
        for block in self.blocks:
            place = block.first, block.rows, block.room, block.length
            q = query[0, :, block.start : block.stop].transpose(0, 1)
            if block.places is not None:
                q = q.new_zeros(block.rows, *q.shape[1:]).index_copy_(0, block.places, q)
            q = q.reshape(block.rows, own, heads // own, q.shape[2])  # by key heads
            mask = block.masks[site.window]
            out, lse = _part(
                q, _seen(site.keys, *place), _seen(site.values, *place), mask, scale, scores
            )
            out, lse = out.reshape(block.rows, heads, -1), lse.reshape(block.rows, heads)
            if block.places is not None:
                out, lse = out[block.places], lse[block.places]
            outs.append(out)
            sums.append(lse)
        for span in self.spans:
            place = span.first, 1, 0, span.length
            q, mask = query[:, :, span.start : span.stop], span.masks[site.window]
            k, v = _seen(site.keys, *place), _seen(site.values, *place)
            out, lse = _part(q, k, v, mask, scale, scores, causal=True)
            outs.append(out[0].transpose(0, 1))
            sums.append(lse[0].T)
        out, lse = torch.cat(outs), torch.cat(sums)
        if self.prefixes:
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
        scores: ScoreTransform,
    ) -> None:
        """Add what the prefixes bring to ``out`` and ``lse``, in place."""
        here = [prefix for prefix in self.prefixes if site.name in prefix.kv]
        if not here:
            return
        at = torch.cat([prefix.tokens for prefix in here])
        _, heads, _, width = query.shape
        groups = heads // own
        # By key heads, (H, n * groups, D), so that the rows of each prefix are a part of it.
        q = query[0].index_select(1, at).view(own, groups, len(at), width).transpose(1, 2)
        q = q.reshape(1, own, len(at) * groups, width)
        outs, sums = [], []
        start = 0
        for prefix in here:
            stop = start + len(prefix.tokens) * groups
            kv = prefix.kv[site.name]
            part, part_lse = _part(
                q[:, :, start:stop], kv.keys[None], kv.values[None], None, scale, scores
            )
            outs.append(part)
            sums.append(part_lse)
            start = stop
        before, before_lse = torch.cat(outs, 2)[0], torch.cat(sums, 2)[0]
        before = before.view(own, len(at), groups, -1).transpose(0, 1).reshape(len(at), heads, -1)
        before_lse = before_lse.view(own, len(at), groups).transpose(0, 1).reshape(len(at), heads)
        sofar = lse.index_select(0, at)
        weight = torch.sigmoid(before_lse - sofar)[..., None].to(out.dtype)
        out.index_copy_(0, at, torch.lerp(out.index_select(0, at), before, weight))
        if scores.sinks is not None:
            lse.index_copy_(0, at, torch.logaddexp(before_lse, sofar))


def _seen(held: Tensor, first: int, rows: int, room: int, length: int) -> Tensor:
    """Return what slots hold, as heads of rows: (rows, H, length, D), not copied."""
    _, heads, width = held.shape
    token = heads * width
    shape, strides = (rows, heads, length, width), (room * token, width, token, 1)
    return held.as_strided(shape, strides, first * token)


def _part(
    query: Tensor,  # (B, Hq, T, D)
    key: Tensor,  # (B, H, S, D)
    value: Tensor,  # (B, H, S, D')
    mask: Tensor | None,  # additive, of four dimensions
    scale: float,
    scores: ScoreTransform,
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
    q = scaled(query, scale).reshape(batch, own, heads // own, length, query.shape[3])
    weights = scores.apply_cap(q @ key[:, :, None].transpose(3, 4)).float()
    if causal:
        past = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        weights = weights.masked_fill(~past, -torch.inf)
    elif mask is not None:
        weights = weights + mask[:, :, None]
    lse = weights.logsumexp(4)
    out = (weights - lse[..., None]).exp().to(value.dtype) @ value[:, :, None]
    return out.reshape(batch, heads, length, -1), lse.reshape(batch, heads, length)
