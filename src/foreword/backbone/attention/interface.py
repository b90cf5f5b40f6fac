"""The attention function: each row attends to its prefix and to its own tokens.

transformers calls the function registered here for every attention module of a model whose
attention implementation is ``"foreword"``, and hands down the keyword ``foreword`` of the model's
``forward`` (`AttentionInterface`, `AttentionMaskInterface`). Nothing is patched and nothing is
kept between calls: the injection is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from foreword.backbone.attention.masked import Prefixes, ScoreTransform, attend, widened
from foreword.backbone.attention.masks import additive, causal_mask
from foreword.backbone.attention.packing import Packing
from foreword.backbone.attention.shared_prefix import joint_attention
from foreword.backbone.attention.slots import SlotPass
from foreword.backbone.attention.watch import Watch
from foreword.backbone.attention.windows import mask_with_window, noting_windows, window_of

NAME = "foreword"

PROBE = "foreword_probe"
"""The same attention, under masks that are always made, and that know their window."""

Recorder = Callable[[nn.Module, Tensor, Tensor, Tensor, int | None], None]


@dataclass(frozen=True, eq=False)
class PassContext:
    """What one forward pass carries down to the attention function.

    ``kv`` holds the prefixes by module, or those of the one module that a layer runs. ``rows``
    (B,) tells which of the R prefixes each row sees, None where R is 1. With ``packing`` the
    batch is one row of packed tokens, and B counts the rows in it; with ``slots`` too, and what the
    rows see besides is in those. ``record`` is called with every attention module's query, key,
    value and window; ``watch`` hears where rows attend that are not packed.
    """

    kv: Mapping[nn.Module, Prefixes] | Prefixes | None = field(default_factory=dict)
    rows: Tensor | None = None
    packing: Packing | None = None
    record: Recorder | None = None
    slots: SlotPass | None = None
    watch: Watch | None = None

    def prefixes(self, module: nn.Module) -> Prefixes | None:
        """Return what a module sees before its tokens."""
        return self.kv if isinstance(self.kv, Prefixes | None) else self.kv.get(module)

    def marked(self, module: nn.Module) -> PassContext:
        """Return the context in which the prefix of a module has values of 1, and none watches."""
        own = self.prefixes(module)
        ones = None if own is None else replace(own, values=torch.ones_like(own.values))
        return PassContext(ones, self.rows)


def attention(
    module: nn.Module,
    query: Tensor,  # (B, Hq, T, D)
    key: Tensor,  # (B, H, S, D)
    value: Tensor,  # (B, H, S, D')
    attention_mask: Tensor | None,  # (B|1, 1|Hq, T, S) bool (True: seen) or additive
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,  # (Hq,) sink logits
    position_bias: Tensor | None = None,  # (1|B, Hq, T, S)
    sliding_window: int | None = None,
    foreword: PassContext | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attend to the prefix and to the row itself; return (B, T, Hq, D') and no weights.

    A learned prefix is seen by every token in every layer, also where a sliding window hides
    far tokens. Without a mask a causal module sees each token's past, as transformers means it. Of
    what transformers gives besides, dropout is 0 in a Backbone, which is never in training mode.
    """
    if foreword is not None and foreword.watch is not None:
        shares, _ = attention(
            module,
            query,
            key,
            foreword.watch.marks(module, value),
            attention_mask,
            scaling=scaling,
            is_causal=is_causal,
            softcap=softcap,
            s_aux=s_aux,
            position_bias=position_bias,
            sliding_window=sliding_window,
            foreword=foreword.marked(module),
        )
        foreword.watch.hear(module, shares[..., 0])
    if foreword is not None and foreword.record is not None:
        window = sliding_window or window_of(attention_mask)
        foreword.record(module, query, key, value, window)
    prefixes = None if foreword is None else foreword.prefixes(module)
    transform = ScoreTransform(softcap, s_aux)
    if foreword is not None and (foreword.packing is not None or foreword.slots is not None):
        if position_bias is not None or (attention_mask is not None and attention_mask.numel() > 1):
            raise RuntimeError("attention by a bias or a mask of the model's own cannot be packed")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if foreword.slots is not None:
            found = foreword.slots.attend(module, query, key, value, scale, transform)
            return found[None], None
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, H, D)
        assert foreword.packing is not None
        out = _packed(q, k, v, foreword.packing, prefixes, foreword.rows, scale, transform)
        return out[None], None
    if prefixes is None and softcap is None and s_aux is None:
        kept = query.dtype
        query, key, value = (widened(tensor) for tensor in (query, key, value))
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            None if attention_mask is None else widened(attention_mask),
            scaling=scaling,
            is_causal=is_causal,
            position_bias=None if position_bias is None else widened(position_bias),
        )
        return attended[0].to(kept), None

    length = query.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    mask = attention_mask
    if mask is None and causal and length > 1:
        # A static cache holds room for keys to come; sdpa too reads no more than are there.
        key, value = key[:, :, :length], value[:, :, :length]
        position_bias = None if position_bias is None else position_bias[..., :length]
        mask = causal_mask(length, key.device)
    if position_bias is not None:
        mask = None if mask is None else additive(mask, position_bias.dtype)
        mask = position_bias if mask is None else position_bias + mask
    rows = None if foreword is None else foreword.rows
    out = attend(query, key, value, mask, prefixes, rows, scaling, transform)
    return out.transpose(1, 2).contiguous(), None


def _packed(
    query: Tensor,  # (N, Hq, D)
    key: Tensor,  # (N, H, D)
    value: Tensor,  # (N, H, D')
    packing: Packing,
    prefixes: Prefixes | None,
    rows: Tensor | None,
    scale: float,
    transform: ScoreTransform,
) -> Tensor:
    """Attend over packed tokens: (N, Hq, D'), block by block or as one joint operation."""
    plain = transform.cap is None and transform.sinks is None
    if plain and rows is None and query.device.type == "cpu" and key.shape == value.shape:
        if prefixes is None:
            none = key.new_zeros(key.shape[1], 0, key.shape[2])
            before = none, none
        else:
            before = prefixes.keys[0], prefixes.values[0]
        tensors = packing.plan, packing.places, packing.sources, packing.masks
        out: Tensor
        out, _ = joint_attention(query, key, value, *before, packing.lead, *tensors, scale)
        return out
    outs: list[Tensor] = []
    done = 0
    for block in packing.blocks():
        q, k, v = (block.spread(tensor).transpose(1, 2) for tensor in (query, key, value))
        mask = causal_mask(block.length, key.device) if block.mask is None else block.mask
        mine = None if rows is None else rows[done : done + block.rows]
        seen = prefixes
        if block.start and packing.lead:
            head, tail = key[: packing.lead], value[: packing.lead]
            seen = _append_lead(prefixes, head.transpose(0, 1)[None], tail.transpose(0, 1)[None])
        out = attend(q, k, v, mask, seen, mine, scale, transform)
        outs.append(block.collect(out.transpose(1, 2)))
        done += block.rows
    return torch.cat(outs)


def _append_lead(prefixes: Prefixes | None, keys: Tensor, values: Tensor) -> Prefixes:
    """Append the keys and values of a lead (1, H, n, D) to the prefix, if there is one."""
    if prefixes is None:
        return Prefixes(keys, values, None)
    return Prefixes(
        torch.cat([prefixes.keys, keys], 2), torch.cat([prefixes.values, values], 2), None
    )


@contextmanager
def probing(model: PreTrainedModel) -> Iterator[None]:
    """Let passes of the model know the windows of their masks, and leave it under :data:`NAME`."""
    model.set_attn_implementation(PROBE)
    try:
        with noting_windows():
            yield
    finally:
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
AttentionInterface.register(PROBE, attention)
AttentionMaskInterface.register(PROBE, mask_with_window)
