"""Shared-prefix attention: a shared prefix and each row's own past, as two parts of one softmax.

Over a prefix that all rows share, attention is one product of all queries with one set of keys,
whatever the rows; over a row's own tokens it is causal and short. The two parts are merged by
their log-sum-exps: ``softmax([s_p; s_o])`` weighs part p by ``exp(lse_p - lse)``, where
``lse = log(exp(lse_p) + exp(lse_o))`` (as in FlashAttention, Dao et al. 2022,
arXiv:2205.14135, and in ring attention, Liu et al. 2023, arXiv:2310.01889). With the merged
output and ``lse`` in their places, each part's own backward kernel gives its share of the
gradient exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.backbone.attention.packing import Packing

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@torch.library.custom_op("foreword::joint_attention", mutates_args=())
def joint_attention(
    query: Tensor,  # (N, Hq, D)
    key: Tensor,  # (N, H, D)
    value: Tensor,  # (N, H, D)
    before_key: Tensor,  # (H, P, D), P may be 0
    before_value: Tensor,  # (H, P, D)
    lead: int,
    plan: Tensor,
    places: Tensor,
    sources: Tensor,
    masks: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend over a packing on the CPU; return the output (N, Hq, D) and its lse (N, Hq).

    The rows see the keys before them, those of the lead, and their own; the lead sees the keys
    before it and its own. One custom operator, so that a compiled layer need not look inside.
    """
    packing = Packing(lead, plan, places, sources, masks)
    outs, sums = [], []
    for block in packing.blocks():
        own = [block.spread(tensor).transpose(1, 2) for tensor in (query, key, value)]
        out, lse = _flash(
            *own, 0.0, block.mask is None, attn_mask=block.mask, scale=scale
        )  # (B, Hq, T, D), (B, Hq, T)
        outs.append(block.collect(out.transpose(1, 2)))
        sums.append(block.collect(lse.transpose(1, 2)))
    out, lse = _join(outs), _join(sums)
    for start, stop, keys, values in _before(packing, key, value, before_key, before_value):
        part, part_lse = _flash(
            _rows(query[start:stop]), keys[None], values[None], 0.0, False, scale=scale
        )  # (1, Hq, n, D), (1, Hq, n)
        part, part_lse = part[0].transpose(0, 1), part_lse[0].T
        own_lse = lse[start:stop]
        weight = torch.sigmoid(part_lse - own_lse)[..., None].to(out.dtype)
        out[start:stop].lerp_(part, weight)
        own_lse.copy_(torch.logaddexp(part_lse, own_lse))
    return out, lse


@joint_attention.register_fake
def _(query: Tensor, *others: object) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=torch.float32)


@torch.library.custom_op("foreword::joint_attention_backward", mutates_args=())
def joint_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    before_key: Tensor,
    before_value: Tensor,
    out: Tensor,
    lse: Tensor,
    lead: int,
    plan: Tensor,
    places: Tensor,
    sources: Tensor,
    masks: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key, value, and the keys and values before them.

    The kernel for half types takes several times as long as the one for float32, so it is that one
    that goes back, also from what was computed in bfloat16.
    """
    kept = query.dtype
    grad, query, key, value, before_key, before_value, out = (
        tensor.to(torch.promote_types(kept, torch.float32))
        for tensor in (grad, query, key, value, before_key, before_value, out)
    )
    packing = Packing(lead, plan, places, sources, masks)
    parts: list[tuple[Tensor, ...]] = []
    for block in packing.blocks():
        padded = [block.spread(t).transpose(1, 2) for t in (query, key, value, out, lse)]
        padded.insert(0, block.spread_zero(grad).transpose(1, 2))
        found = _flash_backward(*padded, 0.0, block.mask is None, attn_mask=block.mask, scale=scale)
        parts.append(tuple(block.collect(t.transpose(1, 2)) for t in found))
    by_query, by_key, by_value = (_join(list(each)) for each in zip(*parts, strict=True))
    by_before_key = before_key.new_zeros(before_key.shape)  # laid out as is promised below
    by_before_value = before_value.new_zeros(before_value.shape)
    count = before_key.shape[1]
    for start, stop, keys, values in _before(packing, key, value, before_key, before_value):
        seen = slice(start, stop)
        q, k, v = _flash_backward(
            _rows(grad[seen]),
            _rows(query[seen]),
            keys[None],
            values[None],
            _rows(out[seen]),
            lse[seen].T[None],
            0.0,
            False,
            scale=scale,
        )
        by_query[seen] += q[0].transpose(0, 1)
        by_before_key += k[0, :, :count]
        by_before_value += v[0, :, :count]
        if start:
            by_key[:lead] += k[0, :, count:].transpose(0, 1)
            by_value[:lead] += v[0, :, count:].transpose(0, 1)
    return (
        by_query.to(kept),
        by_key.to(kept),
        by_value.to(kept),
        by_before_key.to(kept),
        by_before_value.to(kept),
    )


@joint_attention_backward.register_fake
def _(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:5])


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, lead, plan, places, sources, masks, scale = inputs
    ctx.save_for_backward(*tensors, *output, plan, places, sources, masks)
    ctx.lead, ctx.scale = lead, scale


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    *tensors, plan, places, sources, masks = ctx.saved_tensors
    found = joint_attention_backward(
        grad.contiguous(), *tensors, ctx.lead, plan, places, sources, masks, ctx.scale
    )
    return *found, None, None, None, None, None, None


joint_attention.register_autograd(_backward, setup_context=_keep)


def _before(
    packing: Packing, key: Tensor, value: Tensor, before_key: Tensor, before_value: Tensor
) -> list[tuple[int, int, Tensor, Tensor]]:
    """List who sees what before itself: token ranges with keys and values (H, P, D)."""
    lead, total = packing.lead, len(key)
    found = []
    if lead and before_key.shape[1]:
        found.append((0, lead, before_key, before_value))
    if lead:
        before_key = torch.cat([before_key, key[:lead].transpose(0, 1)], 1)
        before_value = torch.cat([before_value, value[:lead].transpose(0, 1)], 1)
    if before_key.shape[1] and total > lead:
        found.append((lead, total, before_key, before_value))
    return found


def _rows(tokens: Tensor) -> Tensor:
    """Lay tokens out as one row of the kernel's: (n, Hq, D) -> (1, Hq, n, D), not copied."""
    return tokens.transpose(0, 1)[None]


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0].contiguous().clone() if len(parts) == 1 else torch.cat(parts)
