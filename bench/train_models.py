"""The frozen model of a comparison, opened once for each side with the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from foreword.backbone.load.sources import PACKAGED, Source, open_source
from foreword.data.read import read_rows
from foreword.errors import UserError

RANDOM = "random-1b"
"""A model of random weights in the shape of Llama 3.2 1B; steps take as long as with real ones."""

_ENDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "random-tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        **_ENDS,
    },
    RANDOM: {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        **_ENDS,
    },
    "random-7b": {
        "vocab_size": 32768,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        **_ENDS,
    },
}
"""Shapes of models with random weights: a tiny one, Llama 3.2 1B, and Mistral 7B."""

_TEXTS = 20_000


def default_model(device: str) -> str:
    """Return the packaged model for a CPU, and the random 1B for a GPU."""
    return PACKAGED if device == "cpu" else RANDOM


def open_model(
    name: str, dtype: str, device: str, files: Mapping[str, str | Path], seed: int
) -> Source:
    """Open what Foreword itself opens by that name, or make the random model.

    Raises UserError where there is no such model, or it is not causal.
    """
    if name in SHAPES:
        return _random(name, dtype, device, files, seed)
    source = open_source(name, dtype=dtype, device=device)
    if source.architecture != "causal":
        raise UserError(f"{name}: is {source.architecture}; peft is compared on causal models")
    return source


def _random(
    name: str, dtype: str, device: str, files: Mapping[str, str | Path], seed: int
) -> Source:
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            LlamaConfig(**SHAPES[name]), dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    model.eval().requires_grad_(False)
    return Source(name, model, _tokenizer(files), "causal")


def _tokenizer(files: Mapping[str, str | Path]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the rows, so that no model needs to be at hand for its tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        special_tokens=["<pad>", "<end>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(_texts(files), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>"
    )


def _texts(files: Mapping[str, str | Path]) -> Iterator[str]:
    """Yield the rows' fields as text; labels are written as they are read, after a space."""
    for file in files.values():
        for row in islice(read_rows(file), _TEXTS):
            yield "".join(f" {value}" for value in row.fields.values())
