"""Where the parts of layers end, family by family, written out."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from families import REACHED, SMALL, UNREACHED, Family, backbone, by_mechanism
from foreword.backbone.inside.layer_parts import LayerPart, find_layer_parts
from foreword.errors import UserError

FAMILIES: dict[str, Family] = {f.name: f for f in [*REACHED, *UNREACHED]}
# For the last layer: the ends of its attention parts, then entry and end of the feed-forward one.
LAST = {
    "llama": (
        "model.layers.2",
        ["self_attn.o_proj"],
        ("mlp.gate_proj", "mlp.down_proj"),
    ),
    "gpt2": ("transformer.h.2", ["attn.c_proj"], ("mlp.c_fc", "mlp.c_proj")),
    "opt": ("model.decoder.layers.2", ["self_attn.out_proj"], ("fc1", "fc2")),
    "phi": ("model.layers.2", ["self_attn.dense"], ("mlp.fc1", "mlp.fc2")),
    "phi3": ("model.layers.2", ["self_attn.o_proj"], ("mlp.gate_up_proj", "mlp.down_proj")),
    "gpt_neox": (
        "gpt_neox.layers.2",
        ["attention.dense"],
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
    "qwen3_moe": ("model.layers.2", ["self_attn.o_proj"], ("mlp", "mlp")),
    "gpt_oss": ("model.layers.2", ["self_attn.o_proj"], ("mlp", "mlp")),
    "bert": (
        "bert.encoder.layer.2",
        ["attention.output.dense"],
        ("intermediate.dense", "output.dense"),
    ),
    "distilbert": (
        "distilbert.transformer.layer.2",
        ["attention.out_lin"],
        ("ffn.lin1", "ffn.lin2"),
    ),
    "albert": (
        "albert.encoder.albert_layer_groups.0.albert_layers.0",
        ["attention.dense"],
        ("ffn", "ffn_output"),
    ),
    "modernbert": ("model.layers.2", ["attn.Wo"], ("mlp.Wi", "mlp.Wo")),
    "t5": (
        "decoder.block.2.layer",
        ["0.SelfAttention.o", "1.EncDecAttention.o"],
        ("2.DenseReluDense.wi", "2.DenseReluDense.wo"),
    ),
    "bart": (
        "model.decoder.layers.2",
        ["self_attn.out_proj", "encoder_attn.out_proj"],
        ("fc1", "fc2"),
    ),
    "bloom": (
        "transformer.h.2",
        ["self_attention.dense"],
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
    "falcon": (
        "transformer.h.2",
        ["self_attention.dense"],
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
    "deberta-v2": (
        "deberta.encoder.layer.2",
        ["attention.output.dense"],
        ("intermediate.dense", "output.dense"),
    ),
    "mpnet": (
        "mpnet.encoder.layer.2",
        ["attention.attn.o"],
        ("intermediate.dense", "output.dense"),
    ),
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_layers_parts(name: str) -> None:
    layer, ends, (entry, end) = LAST[name]
    expected = [
        *(LayerPart("attention", f"{layer}.{e}", 32, f"{layer}.{e}", 32) for e in ends),
        LayerPart("feed-forward", f"{layer}.{end}", 32, f"{layer}.{entry}", 32),
    ]
    assert list(backbone(FAMILIES[name]).layer_parts[-len(expected) :]) == expected


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_every_layer_has_its_parts_and_nothing_stays_behind(name: str) -> None:
    base = backbone(FAMILIES[name])
    parts = base.layer_parts
    layers = 1 if name == "albert" else 3
    if base.architecture == "encoder-decoder":
        assert [p.part for p in parts] == (
            ["attention", "feed-forward"] * 3 + ["attention", "attention", "feed-forward"] * 3
        )
    else:
        assert [p.part for p in parts] == ["attention", "feed-forward"] * layers
    assert len({p.module for p in parts}) == len(parts)
    for part in parts:
        held = f"{part.module}."
        assert not any(f"{site}.".startswith(held) for site in base.sites)
    for module in base.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_widths_are_those_of_what_enters_and_leaves() -> None:
    base = backbone(FAMILIES["llama"], hidden_size=48, head_dim=8)
    assert [(p.inputs, p.width) for p in base.layer_parts] == [(32, 48), (48, 48)] * 3


def test_a_model_whose_layers_stand_in_no_list_says_so() -> None:
    config = AutoConfig.for_model("llama", **SMALL)
    model = AutoModelForCausalLM.from_config(config)
    model.model.layers = nn.Sequential()
    with pytest.raises(UserError, match=r"cannot take an adapter: .* `method=soft` works"):
        find_layer_parts(model, {})
