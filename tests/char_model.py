"""A tiny model that reads texts and numbers by their characters, saved as a folder of its own."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from teaching import START

SIGNS = ".:-+_,?!'{}[]\""
CHARACTERS = ["<pad>", "<end>", "\n", " ", *string.digits, *string.ascii_letters, *SIGNS]
CHAT = (
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '' if loop.first else '\n' }}"
    'call {"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "{% endfor %}{% if m.role == 'assistant' %}<end>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def save(folder: Path, more: str = "") -> str:
    """Save a model with random weights, the same ones at every call; it has a chat template.

    It reads the characters of ``more`` as well.
    """
    known = [*CHARACTERS, *sorted({*more} - {*CHARACTERS})]
    made = Tokenizer(models.WordLevel({c: n for n, c in enumerate(known)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"<end>|[\s\S]"), "isolated")  # type: ignore[assignment]
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])  # type: ignore[assignment]
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", chat_template=CHAT
    ).save_pretrained(folder)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(known),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        initializer_range=3 * START,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)
