"""Tiny random models and tokenizers, saved as the folders and files that sources are read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

LOADERS = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}
SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    },
    "bert": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
}
VOCABULARY = 300


def tiny_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Train byte-level BPE on a few words; without keywords it has `<unk>` and `<eos>`."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = ["a wonderful, heartfelt film about the sea and the seaside", "the dull film fell flat"]
    backend.train_from_iterator(words, trainer)
    special = special or {"unk_token": "<unk>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def tiny_model(kind: str, model_type: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(
        model_type, vocab_size=VOCABULARY, **{**SIZES[model_type], **changes}
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = LOADERS[kind].from_config(config)
    return model.eval()


def tiny_folder(folder: Path, kind: str = "causal", model_type: str = "llama") -> PreTrainedModel:
    model = tiny_model(kind, model_type)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def tiny_gguf(path: Path) -> PreTrainedModel:
    """Write a tiny Llama with one head a layer, as llama.cpp lays it out."""
    model = tiny_model("causal", "llama", num_attention_heads=1, num_key_value_heads=1)
    config, backend = model.config, tiny_tokenizer().backend_tokenizer
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([backend.id_to_token(i) for i in range(VOCABULARY)])
    writer.add_token_types([3, 3, *[1] * (VOCABULARY - 2)])
    writer.add_token_merges(_merges(backend))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight":  # tied
            continue
        if "q_proj" in key or "k_proj" in key:
            tensor = _rotary_rows(tensor)
        stem = key.removesuffix(".weight")
        writer.add_tensor(f"{names.get_name(stem)}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _merges(backend: Tokenizer) -> list[str]:
    return [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]


def _rotary_rows(weight: torch.Tensor) -> torch.Tensor:
    """Interleave the two halves of a head's rows, as llama.cpp lays rotary weights out."""
    rows, columns = weight.shape
    return weight.view(2, rows // 2, columns).transpose(0, 1).reshape(rows, columns).contiguous()
