"""Sliding windows that a model tells to its mask alone, longer than what they are tried on."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from families import GQA, Family, backbone
from foreword.backbone.attention.interface import NAME
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.example import Example
from foreword.injection import NOTHING, Injection
from plain import twin

MOE = {"num_key_value_heads": 2, "num_experts_per_tok": 2}
SLIDING = ["sliding_attention"] * 3
WINDOWED: dict[str, dict[str, Any]] = {
    "qwen2_moe": {
        **MOE,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "use_sliding_window": True,
        "layer_types": SLIDING,
    },
    "phimoe": {**MOE, "num_local_experts": 4},
    "doge": {"num_key_value_heads": 2, "layer_types": SLIDING},  # makes a mask of its own of it
    "mistral": GQA,  # tells its attention too
}
LONG, SHORT = tuple(range(30, 43)), (88, 12, 47)


@cache
def get(name: str, window: int = 6) -> Backbone:
    return backbone(Family(name, "causal", {**WINDOWED[name], "sliding_window": window}))


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("window", [6, 4096])
def test_the_window_is_known_however_long_it_is(name: str, window: int) -> None:
    base = get(name, window)
    assert {site.window for site in base.sites.values()} == {window}
    assert base.fits_window(window)
    assert not base.fits_window(window + 1)
    assert base.model.config._attn_implementation == NAME


@pytest.mark.parametrize("name", WINDOWED)
@torch.no_grad()
def test_rows_longer_than_the_window_equal_the_untouched_model(name: str) -> None:
    base, model = get(name), twin(get(name))
    rows = [LONG, SHORT, LONG[:7]]
    asked = [Example(row, len(row), ((5, 6),), ((0, -1), (0, 1))) for row in rows]
    found = base.logits(base.states(asked)).view(3, 2, -1)
    for row, logits in zip(rows, found, strict=True):
        full = model(torch.tensor([[*row, 5, 6]])).logits[0]
        torch.testing.assert_close(logits, full[[len(row) - 1, len(row) + 1]], atol=1e-5, rtol=0)
    soft = Injection(embeds=base.embed(SHORT), leading=3)
    assert base.prefill(soft, LONG[:2], 7) is None  # 10 tokens with the virtual ones
    how = Decoding(max_new_tokens=4)
    both = decode(base, rows, soft, how)
    assert both == [decode(base, [(*SHORT, *row)], NOTHING, how)[0] for row in rows]


def test_a_mask_of_no_window_hides_nothing() -> None:
    base = backbone(Family("llama", "causal", GQA))
    assert base.window is None
    assert backbone(Family("bert", "masked")).window is None


def test_layers_of_both_kinds_are_told_apart() -> None:
    kinds = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    config = {**WINDOWED["qwen2_moe"], **kinds, "sliding_window": 6}
    base = backbone(Family("qwen2_moe", "causal", config))
    assert [site.window for site in base.sites.values()] == [6, None, 6]
