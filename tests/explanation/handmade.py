"""A tiny model whose weights are set by hand, so that it is known what carries an answer.

Every layer attends to all that it sees in equal shares and adds the mean of it; feed-forward parts
add nothing. Each word has a direction of its own, and the head knows those of "good" and "bad"
alone. So the answer is the one of the two that was read, wherever it stands.
"""

from __future__ import annotations

from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify

WORDS = ["<pad>", "<end>", "good", "bad", "the", "film", "was", "it", ":", "x"]
WIDTH, LAYERS = 16, 3
TASK = Classify(template="{text} :", labels={"good": " good", "bad": " bad"})
TEXTS = ["the film was it", "it was the film", "film the it", "was it the film", "film film", "it"]
ROWS = [Row({"text": text, "label": "good"}, f"row {n}") for n, text in enumerate(TEXTS)]


@cache
def backbone() -> Backbone:
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=4,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=WIDTH,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.fill_(1.0)
            elif name.endswith(("v_proj.weight", "o_proj.weight")):
                weight.copy_(torch.eye(WIDTH))
            else:
                weight.zero_()
        model.model.embed_tokens.weight[:, : len(WORDS)] = torch.eye(len(WORDS))
        for word in ("good", "bad"):
            model.lm_head.weight[WORDS.index(word), WORDS.index(word)] = 4.0
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")
    return Backbone(model, tokenizer, architecture="causal", name="handmade")


def bound(task: Classify = TASK) -> Bound:
    return task.bind(backbone())


def word(name: str, size: float = 1.0) -> torch.Tensor:
    """A word's direction: (width,)."""
    return torch.eye(WIDTH)[WORDS.index(name)] * size


def soft(place: int, length: int = 4, name: str = "good") -> Injection:
    """Virtual tokens that read as "the", and one that reads as the answer."""
    embeds = torch.stack([word(name if n == place else "the") for n in range(length)])
    return Injection(embeds=embeds, leading=length)


def prefix(layer: int, place: int, length: int = 4) -> Injection:
    """Keys and values of zero, and "good" as the value at one position of one layer."""
    kv = {}
    for n, site in enumerate(backbone().sites):
        values = torch.zeros(1, length, WIDTH)
        if n == layer:
            values[0, place] = word("good", 30.0)
        kv[site] = KV(torch.zeros(1, length, WIDTH), values)
    return Injection(kv=kv, positions=length)


def prompt(injection: Injection, task: Classify = TASK) -> Prompt:
    own = backbone()
    about = {"name": own.name, "architecture": "causal", "fingerprint": own.fingerprint}
    return Prompt(injection, task, about, method={"name": "by hand"}, on=own)
