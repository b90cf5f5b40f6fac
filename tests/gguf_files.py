"""GGUF files of tiny models, as llama.cpp's own converter lays them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
from torch import Tensor
from transformers import PreTrainedModel

KINDS = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "phi3": gguf.MODEL_ARCH.PHI3,
}


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    stored: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    more: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> Path:
    """Write a model's weights beside a vocabulary of made-up words, of which none is read.

    Matrices are ``stored`` as a type, vectors in float32. ``more`` may add to the file.
    """
    config = model.config
    kind = KINDS[config.model_type]
    heads, grouped = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(grouped)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rotary = config.rope_parameters
    writer.add_rope_freq_base(rotary.get("full_attention", rotary)["rope_theta"])
    if kind is gguf.MODEL_ARCH.GEMMA3:
        writer.add_sliding_window(config.sliding_window)
    if kind is gguf.MODEL_ARCH.QWEN3MOE:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["Ċ", *(f"w{n}" for n in range(1, config.vocab_size - 2)), "w", "1"])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["w 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        stem, _, end = key.rpartition(".")
        if stem == "lm_head" and config.tie_word_embeddings:
            continue
        if kind is gguf.MODEL_ARCH.LLAMA and stem.endswith(("q_proj", "k_proj")):
            tensor = in_pairs(tensor, heads if stem.endswith("q_proj") else grouped)
        if kind is gguf.MODEL_ARCH.GEMMA3 and stem.endswith("norm"):
            tensor = tensor + 1
        if ".experts" in stem:
            for name, part in _experts(f"{stem}.{end}", tensor):
                _add(writer, name, part, stored)
            continue
        _add(writer, f"{names.get_name(stem)}.{end}", tensor, stored)
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(
    writer: gguf.GGUFWriter, name: str, tensor: Tensor, stored: gguf.GGMLQuantizationType
) -> None:
    kind = gguf.GGMLQuantizationType.F32 if tensor.ndim == 1 else stored
    writer.add_tensor(name, gguf.quantize(tensor.contiguous().numpy(), kind), raw_dtype=kind)


def _experts(key: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    layer = key.split(".")[2]
    if key.endswith("down_proj"):
        return [(f"blk.{layer}.ffn_down_exps.weight", tensor)]
    gate, up = tensor.chunk(2, 1)
    return [(f"blk.{layer}.ffn_gate_exps.weight", gate), (f"blk.{layer}.ffn_up_exps.weight", up)]


def in_pairs(weight: Tensor, heads: int) -> Tensor:
    """Put rows side by side that turn together: i and i + D/2 of each head."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)
