"""Tiny random models of every family that the project names, the table that tests run over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.recurrent_model import RecurrentConfig

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 160,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
GQA = {"num_key_value_heads": 2, "head_dim": 8}


@dataclass(frozen=True)
class Family:
    name: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    model_type: str | None = None  # that of transformers, where the name is not


CAUSAL = [
    Family("llama", "causal", GQA),
    Family("qwen2", "causal", {"num_key_value_heads": 2}),
    Family("qwen3", "causal", GQA),
    Family("mistral", "causal", {**GQA, "sliding_window": None}),
    Family("gemma2", "causal", {**GQA, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
    Family("gemma3_text", "causal", GQA),
    Family("phi", "causal"),
    Family("phi3", "causal"),
    Family("gpt_neox", "causal"),
    Family("smollm3", "causal", {"num_key_value_heads": 2}),
    Family("olmo2", "causal"),
    Family("granite", "causal", {"num_key_value_heads": 2, "logits_scaling": 2.0}),
    Family("gpt2", "causal", {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    Family("opt", "causal", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    Family(
        "qwen3_moe",
        "causal",
        {**GQA, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    Family("gpt_oss", "causal", {**GQA, "num_local_experts": 4, "num_experts_per_tok": 2}),
]
WINDOWED = [
    Family("mistral", "causal", {**GQA, "sliding_window": 4}),
    Family("gemma3_text", "causal", {**GQA, "sliding_window": 4}),
]
MASKED = [
    Family("bert", "masked"),
    Family("roberta", "masked", {"max_position_embeddings": 130}),
    Family("xlm-roberta", "masked", {"max_position_embeddings": 130}),
    Family("electra", "masked", {"embedding_size": 32}),
    Family("distilbert", "masked", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}),
    Family("albert", "masked", {"embedding_size": 16}),
    Family("modernbert", "masked", {"cls_token_id": 1, "sep_token_id": 1}),
]
SEQ2SEQ = [
    Family(
        "t5",
        "encoder-decoder",
        {
            "d_model": 32,
            "d_ff": 64,
            "num_layers": 3,
            "num_heads": 4,
            "d_kv": 8,
            "decoder_start_token_id": 0,
        },
    ),
    *(
        Family(
            name,
            "encoder-decoder",
            {
                "d_model": 32,
                "encoder_layers": 3,
                "decoder_layers": 3,
                "encoder_attention_heads": 4,
                "decoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "decoder_ffn_dim": 64,
                "decoder_start_token_id": 0,
            },
        )
        for name in ("bart", "marian")
    ),
]
UNREACHED = [
    Family("bloom", "causal", {"n_layer": 3, "n_head": 4}),
    Family("falcon", "causal"),
    Family("deberta-v2", "masked"),
    Family("mpnet", "masked"),
]
RECURRENT = [
    Family(cell, "causal", {"cell": cell}, RecurrentConfig.model_type) for cell in ("lstm", "gru")
]
ENCODERS = [  # what predicts no tokens; each a base model alone
    Family("bert-encoder", "encoder", model_type="bert"),
    Family("roberta-encoder", "encoder", {"max_position_embeddings": 130}, "roberta"),
    Family("modernbert-encoder", "encoder", {"cls_token_id": 1, "sep_token_id": 1}, "modernbert"),
    Family("xlm-roberta-encoder", "encoder", {"max_position_embeddings": 130}, "xlm-roberta"),
    Family("qwen3-encoder", "encoder", GQA, "qwen3"),
]
REACHED = [*CAUSAL, *MASKED, *SEQ2SEQ]
MECHANISMS = ("llama", "gpt2", "bert", "t5", "mistral-window")
"""One family of every kind of attention, positions and stacks."""
CLASSES = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
    "encoder": AutoModel,
}


def by_mechanism(cases: Iterable[Any]) -> list[ParameterSet]:
    """Names of families, or tuples that end in one: one of every mechanism, and slow tests.

    Where a list has no family of ``MECHANISMS``, its first case is the one that is not slow.
    """
    listed = list(cases)
    names = [case if isinstance(case, str) else case[-1] for case in listed]
    quick = [name for name in names if name in MECHANISMS] or names[:1]
    return [
        pytest.param(
            *((case,) if isinstance(case, str) else case),
            marks=[] if name in quick else pytest.mark.slow,
        )
        for case, name in zip(listed, names, strict=True)
    ]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 160 tokens with <pad> 0, <end> 1, <mask> 2, trained on two sentences."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=160,
        special_tokens=["<pad>", "<end>", "<mask>"],
        show_progress=False,
        initial_alphabet=sorted(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:.,?!0123456789Ġ"
        ),
    )
    made.train_from_iterator(["a good film and a bad film : good bad\n", "it was good"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", mask_token="<mask>"
    )


def backbone(family: Family, *, dtype: torch.dtype = torch.float32, **config: Any) -> Backbone:
    """A tiny random backbone of a family, the same weights at every call."""
    model = family_model(family, dtype=dtype, **config)
    return Backbone(model, tokenizer(), architecture=family.architecture, name=family.name)  # type: ignore[arg-type]


def family_model(
    family: Family, *, dtype: torch.dtype = torch.float32, **config: Any
) -> PreTrainedModel:
    """The model of :func:`backbone`, as transformers makes it."""
    torch.manual_seed(0)
    made = AutoConfig.for_model(
        family.model_type or family.name, **{**SMALL, **family.config, **config}
    )
    kind = CLASSES[family.architecture]
    eager = family.name in ("gemma2",)
    model = kind.from_config(made, attn_implementation="eager" if eager else None).to(dtype)
    for parameter in model.parameters():  # some start at zero, which would hide mistakes
        if parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model
