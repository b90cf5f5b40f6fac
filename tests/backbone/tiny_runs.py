"""Tiny families at work: runs through a Backbone and, beside them, through untouched models."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from families import (
    CAUSAL,
    CLASSES,
    MASKED,
    RECURRENT,
    SEQ2SEQ,
    SMALL,
    UNREACHED,
    WINDOWED,
    Family,
    backbone,
)
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.inside.attention_sites import Site
from foreword.injection import KV, NOTHING, Injection, Mixture


def variant(name: str, **config: Any) -> Family:
    family = next(f for f in [*CAUSAL, *SEQ2SEQ] if f.name == name)
    return replace(family, config=family.config | config)


MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
WINDOWS = {f"{f.name}-window": f for f in WINDOWED} | {
    "gemma3-mixed": variant("gemma3_text", sliding_window=4, layer_types=MIXED)
}
# Settings of real models that the tiny ones of the table leave off, where mistakes could hide.
VARIANTS = {
    "gemma2-capped": variant("gemma2", final_logit_softcapping=1.0),
    "bart-scaled": variant("bart", scale_embedding=True),
    "marian-scaled": variant("marian", scale_embedding=True),
}
FAMILIES = {f.name: f for f in [*CAUSAL, *RECURRENT, *MASKED, *SEQ2SEQ, *UNREACHED]}
FAMILIES |= WINDOWS | VARIANTS
UNREACHED_NAMES = [f.name for f in UNREACHED]
RECURRENT_NAMES = [f.name for f in RECURRENT]
REACHED_NAMES = [n for n in FAMILIES if n not in (*UNREACHED_NAMES, *RECURRENT_NAMES)]
FULL = [  # causal, and every token sees its whole past
    n for n in REACHED_NAMES if FAMILIES[n].architecture == "causal" and n not in WINDOWS
]
TWO_STACKS = [n for n in REACHED_NAMES if FAMILIES[n].architecture == "encoder-decoder"]
UNFOLDABLE = [n for n in FAMILIES if FAMILIES[n].architecture != "causal" or n in UNREACHED_NAMES]


LEAD = (17, 90, 33, 120, 64)
ROWS = ((23, 51, 140, 9, 77, 31, 105), (88, 12, 47), (5, 133, 64, 29, 101))
LONG = tuple(range(30, 43))


@cache
def get(name: str, dtype: torch.dtype = torch.float32) -> Backbone:
    made = backbone(FAMILIES[name], dtype=dtype)
    for key, buffer in made.model.named_buffers():
        if key == "final_logits_bias":  # zeros until a checkpoint is loaded
            buffer.copy_(torch.linspace(-1, 1, buffer.numel()))
    return made


def twin(name: str, attention: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same weights in a model of its own."""
    model = get(name, dtype).model
    kind = CLASSES[FAMILIES[name].architecture]
    made = kind.from_config(copy.deepcopy(model.config), attn_implementation=attention)
    made.to(dtype).load_state_dict(model.state_dict())
    return made.eval().requires_grad_(False)


@cache
def untouched(name: str) -> PreTrainedModel:
    return twin(name, "eager")


def decoded(row: Sequence[int]) -> tuple[int, ...]:
    """What a decoder is given to read beside the row, where there is one."""
    return tuple(token for token in row if token < SMALL["vocab_size"])[:3]


def asking(name: str, row: Sequence[int]) -> Example:
    """Ask at every token of a row (of the decoder's, where there is one)."""
    ids = tuple(row)
    if FAMILIES[name].architecture == "encoder-decoder":
        said = decoded(ids)
        return Example(ids, len(ids), (said,), tuple((0, j) for j in range(-1, len(said))))
    return Example(ids[:1], 1, (ids[1:],), tuple((0, j) for j in range(-1, len(ids) - 1)))


def scores(
    name: str,
    rows: Sequence[Sequence[int]],
    injection: Injection | Mixture = NOTHING,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Run rows in one batch: the logits at every token of each (T, V)."""
    base = get(name, dtype)
    asked = [asking(name, row) for row in rows]
    found = base.logits(base.states(asked, injection))
    return list(found.split([len(example.targets) for example in asked]))


@torch.no_grad()
def oracle(model: PreTrainedModel, row: Sequence[int] | Tensor, *said: int, **more: Any) -> Tensor:
    """Run one row, ids or embeddings, through a model: its logits (T, V)."""
    key = "inputs_embeds" if isinstance(row, Tensor) else "input_ids"
    inputs = {key: row[None] if isinstance(row, Tensor) else torch.tensor([list(row)])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[0, *said]])
    return model(**inputs, **more).logits[0]


def random_kv(base: Backbone, length: int, seed: int = 0) -> Injection:
    """A learned prefix, of no text: every site has its own."""
    random = torch.Generator().manual_seed(seed)

    def normal(site: Site, width: int) -> Tensor:
        return torch.randn(site.heads, length, width, generator=random).to(base.dtype)

    kv = {n: KV(normal(s, s.key_width), normal(s, s.value_width)) for n, s in base.sites.items()}
    return Injection(kv=kv, positions=length if base.architecture == "causal" else 0)


def random_soft(base: Backbone, size: int, leading: int = 0, seed: int = 0) -> Injection:
    random = torch.Generator().manual_seed(seed)
    embeds = 0.3 * torch.randn(size, base.width, generator=random)
    return Injection(embeds=embeds.to(base.dtype), leading=leading)


def close(found: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def loss_and_gradients(
    base: Backbone, injection: Injection, examples: Sequence[Example]
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = injection.map(lambda tensor: tensor.detach().clone().requires_grad_())
    logits = base.logits(base.states(examples, leaves))
    loss = F.cross_entropy(logits, torch.arange(len(logits)) + 3)
    loss.backward()
    gradients = {}
    for name, leaf in leaves.tensors():
        assert leaf.grad is not None, f"no gradient reaches {name}"
        gradients[name] = leaf.grad
    return loss.detach(), gradients


def digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
