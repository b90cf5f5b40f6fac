"""Masked attention: rows side by side, each with the prefix that it sees, in one call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.attention.masks import additive

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The keys and values of R prefixes for one attention module, padded to the longest.

    ``visible`` is None where all R have the same length.
    """

    keys: Tensor  # (R, H, P, D)
    values: Tensor  # (R, H, P, D')
    visible: Tensor | None  # (R, P) bool


@dataclass(frozen=True, eq=False)
class ScoreTransform:
    """How some models change attention scores: a soft cap (Gemma 2), sinks (Hq,) (gpt-oss)."""

    cap: float | None = None
    sinks: Tensor | None = None

    def apply_cap(self, scores: Tensor) -> Tensor:
        """Apply the soft cap to scores."""
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap

    def weights(self, scores: Tensor) -> Tensor:
        """Return the weight of each key beside the sinks: (B, Hq, T, S) -> the same, float32."""
        exact = torch.promote_types(scores.dtype, torch.float32)
        if self.sinks is None:
            return scores.softmax(3, dtype=exact)
        column = self.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        return torch.cat([scores, column], 3).softmax(3, dtype=exact)[..., :-1]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    prefixes: Prefixes | None,
    rows: Tensor | None,
    scaling: float | None,
    transform: ScoreTransform,
) -> Tensor:
    """Attend as one masked call: (B, Hq, T, D')."""
    kept, groups = query.dtype, query.shape[1] // key.shape[1]
    if prefixes is not None:
        one = rows is None and prefixes.visible is None and prefixes.keys.shape[2] > 0
        small = query.shape[2] < 2 * query.shape[3]  # scores are smaller than copied keys
        if one and small and not torch.is_grad_enabled():
            return _beside(query, key, value, mask, prefixes, scaling, transform)
        key, value, mask = _prepend(prefixes, rows, key, value, mask)
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if transform.cap is None and transform.sinks is None:
        query, key, value = (widened(tensor) for tensor in (query, key, value))
        mask = None if mask is None else widened(mask)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        return out.to(kept)
    return _explicit(query, key, value, mask, scaling, transform)


def _prepend(
    prefixes: Prefixes, rows: Tensor | None, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Put each row's prefix before its keys and values, and open the mask to it."""
    batch = key.shape[0]
    if rows is None:
        before = prefixes.keys.expand(batch, -1, -1, -1), prefixes.values.expand(batch, -1, -1, -1)
        visible = prefixes.visible
    else:
        before = prefixes.keys[rows], prefixes.values[rows]
        visible = None if prefixes.visible is None else prefixes.visible[rows]
    length, own = before[0].shape[2], key.shape[2]
    key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
    if visible is None and mask is None:
        return key, value, None
    if mask is None:
        mask = torch.ones(1, 1, 1, own, dtype=torch.bool, device=key.device)
    if visible is None:
        seen = torch.ones(1, 1, 1, length, dtype=torch.bool, device=key.device)
    else:
        seen = visible[:, None, None, :]
    if mask.dtype != torch.bool:
        seen = additive(seen, mask.dtype)
    shape = (max(mask.shape[0], seen.shape[0]), mask.shape[1], mask.shape[2], -1)
    return key, value, torch.cat([seen.expand(*shape), mask.expand(*shape)], 3)


def _beside(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    prefixes: Prefixes,
    scaling: float | None,
    transform: ScoreTransform,
) -> Tensor:
    """Attend to one prefix of all rows without a copy of it for each: (B, Hq, T, D')."""
    batch, heads, length, width = query.shape
    own, size, every = key.shape[1], prefixes.keys.shape[2], heads // key.shape[1] * length
    scale = width**-0.5 if scaling is None else scaling
    q = scaled(query, scale).reshape(batch, own, every, width)  # by key heads
    together = q.transpose(0, 1).reshape(own, batch * every, width)
    before = together @ prefixes.keys[0].transpose(1, 2)  # (H, B * every, P)
    before = before.view(own, batch, every, size).transpose(0, 1)
    before = before.reshape(batch, heads, length, size)
    after = (q @ key.transpose(2, 3)).view(batch, heads, length, key.shape[2])
    weights = transform.weights(
        torch.cat([transform.apply_cap(before), _cap_and_mask(transform, after, mask)], 3)
    )
    first, rest = torch.split(weights.to(query.dtype), [size, key.shape[2]], 3)
    first = first.reshape(batch, own, every, size).transpose(0, 1)
    seen = first.reshape(own, batch * every, size) @ prefixes.values[0]
    seen = seen.view(own, batch, every, value.shape[3]).transpose(0, 1)
    out = torch.add(seen, rest.reshape(batch, own, every, key.shape[2]) @ value)
    return out.reshape(batch, heads, length, value.shape[3])


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    transform: ScoreTransform,
) -> Tensor:
    """Attend step by step, for soft-capped scores (Gemma 2) and attention sinks (gpt-oss)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = scaled(query, scale) @ key.transpose(2, 3)
    weights = transform.weights(_cap_and_mask(transform, scores, mask))
    return weights.to(query.dtype) @ value


def _cap_and_mask(transform: ScoreTransform, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Cap scores, then add the mask to them."""
    scores = transform.apply_cap(scores)
    return scores if mask is None else scores + additive(mask, scores.dtype)


def scaled(query: Tensor, scale: float) -> Tensor:
    """Scale queries, and not their products with keys: those may be more than float16 can hold."""
    return query * scale


def widened(tensor: Tensor) -> Tensor:
    """Widen half types to float32 where a CPU may go back, for which it has no fast kernel."""
    slow = tensor.dtype in HALF and tensor.device.type == "cpu" and torch.is_grad_enabled()
    return tensor.float() if slow else tensor
