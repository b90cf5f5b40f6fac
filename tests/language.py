"""Tiny models that have learned a toy language, so that there is something to be tuned.

A sentence is three colours and its answer: the first of them or, where the word ``other`` stands
in front, the colour opposite to it. A prompt has to find what ``other`` says: no row has the word.
"""

from __future__ import annotations

import random
from functools import cache

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast

from families import CLASSES
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.tasks.classify import Classify
from teaching import SEED, START, teach

COLOURS = ["red", "blue", "green", "pink", "grey", "gold"]
WORDS = ["<pad>", "<end>", "<mask>", "same", "other", ":", *COLOURS]
SIZES = {
    "llama": {"hidden_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64},
    "bert": {"hidden_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64},
    "t5": {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "decoder_start_token_id": 0},
}
ARCHITECTURES = {"llama": "causal", "bert": "masked", "t5": "encoder-decoder"}


def words() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the language's words and nothing else."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", mask_token="<mask>"
    )


def task(name: str) -> Classify:
    mask = " [mask]" if ARCHITECTURES[name] == "masked" else ""
    return Classify(template=f"{{text}} :{mask}", labels={c: f" {c}" for c in COLOURS})


def rows(n: int, seed: int) -> list[Row]:
    """Sentences to be answered by the opposite of their first colour."""
    chance = random.Random(seed)
    drawn = [chance.sample(COLOURS, 3) for _ in range(n)]
    return [
        Row({"text": " ".join(d), "label": other(d[0])}, f"toy:{i}") for i, d in enumerate(drawn, 1)
    ]


def other(colour: str) -> str:
    return COLOURS[(COLOURS.index(colour) + 3) % len(COLOURS)]


@cache
def taught(name: str, steps: int) -> Backbone:
    """Train a tiny model on the language; the same weights at every call."""
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(
        name,
        vocab_size=len(WORDS),
        **{"num_attention_heads": 4, "num_heads": 4, "intermediate_size": 96, **SIZES[name]},
        pad_token_id=0,
        eos_token_id=1,
        initializer_range=START,
    )
    model = CLASSES[ARCHITECTURES[name]].from_config(config).eval()  # dropout off
    teach(model, lambda: _loss(model, name), steps, 3e-3)
    return Backbone(model, words(), architecture=ARCHITECTURES[name], name=name)  # type: ignore[arg-type]


def _loss(model: PreTrainedModel, name: str, size: int = 64) -> torch.Tensor:
    """The loss of one batch of sentences, all under one key or none."""
    first = WORDS.index(COLOURS[0])
    colours = torch.rand(size, len(COLOURS)).argsort(1)[:, :3] + first
    key = ["", "same", "other"][int(torch.randint(3, ()))]
    front = torch.full((size, 1), WORDS.index(key)) if key else colours[:, :0]
    ids = torch.cat([front, colours, torch.full((size, 1), WORDS.index(":"))], 1)
    answer = colours[:, 0]
    if key == "other":
        answer = (answer - first + 3) % len(COLOURS) + first
    if name == "bert":
        ids = torch.cat([ids, torch.full((size, 1), WORDS.index("<mask>"))], 1)
    more = {"decoder_input_ids": torch.zeros(size, 1, dtype=torch.long)} if name == "t5" else {}
    return F.cross_entropy(model(input_ids=ids, **more).logits[:, -1], answer)
