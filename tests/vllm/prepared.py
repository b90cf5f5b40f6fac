"""A model folder, prompts of it as vLLM reads them, and what Foreword itself answers with each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

import foreword as fw
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.export.vllm import to_vllm
from foreword.injection import NOTHING
from foreword.methods.base import Method
from foreword.methods.prefix import Prefix
from foreword.methods.registry import name_of
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate

LENGTHS = (16, 20, 32, 45)
"""Positions of prefixes: half a block of the CPU's, less than one, one, and more than one."""

START = (
    "You are the assistant of a small shop that sells books and maps. Answer every question of a "
    "customer in one short and friendly sentence, and never promise what you cannot know for sure, "
    "such as the day on which a parcel arrives or the reason why it is late."
)
TEXTS = (
    "The parcel came a week late and the box was open.",
    "Thank you, that was quick and very kind!",
    "How do I change the address on my account?",
    "It rained all day, so the match was moved to Sunday evening.",
    "Do you have a map of the Alps that shows the huts?",
    "I would not buy here again.",
)
MESSAGES = [{"role": "user", "content": "Do you sell maps of the Alps?"}]

WRITE = Generate(template="Question: {text}\nAnswer:", decoding=Decoding(max_new_tokens=24))
JUDGE = Classify(
    template="{text}\nIt was",
    labels={"good": (" good", " very good"), "bad": " bad", "neither": " neither good nor bad"},
)
TALK = Chat(template="{messages}", decoding=Decoding(max_new_tokens=24))


def started(method: Method, task: Task, model: Backbone, seed: int) -> Prompt:
    """A prompt as its method starts, moved a little, so that each one says something else."""
    rows = [fw.Row({"text": text, "completion": "Yes.", "label": "good"}, "row") for text in TEXTS]
    if isinstance(task, Chat):
        turns = [*MESSAGES, {"role": "assistant", "content": "Yes, we do."}]
        rows = [fw.Row({"messages": turns}, "row")]
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        injection = method.build(task.bind(model), rows, seed)().map(
            lambda t: t + 0.02 * t.std() * torch.randn(t.shape, generator=random)
        )
    about = {name: getattr(model, name) for name in ("name", "architecture", "fingerprint")}
    return Prompt(injection, task, about, method={"name": name_of(method)}, on=model)


def prompts(model: Backbone) -> dict[str, Prompt]:
    """Prompts of several lengths, methods and tasks."""
    made = {
        f"prefix-{size}": started(
            Prefix(length=size, start="text", start_text=START), WRITE, model, size
        )
        for size in LENGTHS
    }
    soft = Soft(length=12, start="text", start_text=START)
    return {
        **made,
        "soft": started(soft, WRITE, model, 1),
        "mood": started(Prefix(length=24, start="text", start_text=START), JUDGE, model, 2),
        "mood-soft": started(soft, JUDGE, model, 3),
        "shop": started(soft, TALK, model, 4),
    }


def tiny(window: int | None = None) -> Backbone:
    """A llama of two layers whose heads split in two, which reads and writes letters.

    With a ``window`` it is a Mistral, all of whose layers slide.
    """
    alphabet = ["Ġ", "Ċ", *map(chr, range(33, 127))]  # bytes that are no text are decoded otherwise
    vocabulary = {sign: n for n, sign in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = (
        "{% for turn in messages %}{{ turn['role'] }}:\n{{ turn['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    if window is not None:
        model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=window))
    return Backbone(model, fast, architecture="causal", name="tiny")


def prepare(folder: Path, model: Backbone) -> None:
    """Write the model, the prompts and ``answers.json``."""
    (folder / "model").mkdir(parents=True)
    model.model.save_pretrained(folder / "model")
    model.text.tokenizer.save_pretrained(folder / "model")
    answers: dict[str, Any] = {}
    for name, prompt in prompts(model).items():
        to_vllm(prompt, folder / "prompts" / f"{name}.safetensors")
        chat = isinstance(prompt.task, Chat)
        rows = [{"messages": MESSAGES}] if chat else [{"text": text} for text in TEXTS]
        answers[name] = prompt.answers([fw.Row(row, "row") for row in rows])
    other = started(Prefix(length=30, start="text", start_text=START[40:]), WRITE, model, 9)
    to_vllm(other, folder / "replaced" / "soft.safetensors")
    answers["replaced"] = other.answers([fw.Row({"text": text}, "row") for text in TEXTS])
    plain = replace(other, injection=NOTHING)
    answers["plain"] = plain.answers([fw.Row({"text": text}, "row") for text in TEXTS])
    (folder / "answers.json").write_text(json.dumps(answers, indent=1))
