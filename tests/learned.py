"""Tiny encoders and encoder-decoders that have learned a toy language, so that tasks can be tuned.

A text is three colours and a question about one of them, or about two. In front may stand a key:
``next`` asks for the colour that comes next (after the last one the first), or how the two stand;
``same``, and no key at all, for the first colour that the question names. A prompt has to find
what ``next`` says: no row has the word.
"""

from __future__ import annotations

import random
from functools import cache

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerFast

from families import CLASSES
from foreword.backbone.backbone import Backbone
from foreword.data.read import Row

COLOURS = ["red", "blue", "green", "pink", "grey", "gold"]
STANDS = ["before", "after", "apart"]
SIGNS = ["<pad>", "<end>", "<mask>", "same", "next", "|", ":"]
WORDS = [*SIGNS, *STANDS, *COLOURS]
FIRST = WORDS.index(COLOURS[0])
ARCHITECTURES = {"bert": "masked", "t5": "encoder-decoder"}
SIZES = {
    "bert": {"hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 32},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "decoder_start_token_id": 0},
}
STEPS = {"bert": 700, "t5": 700}


def number(word: str) -> int:
    return WORDS.index(word)


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", mask_token="<mask>"
    )


def stands(first: int, second: int) -> str:
    """How two places of a sentence stand to one another."""
    return {1: "before", -1: "after"}.get(second - first, "apart")


def questions(size: int, key: str, pair: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences (B, 3), what is asked of them (B, 1 or 2), and the answers (B,)."""
    colours = torch.rand(size, len(COLOURS)).argsort(1)[:, :3] + FIRST
    places = torch.rand(size, 3).argsort(1)[:, : 1 + pair]
    asked = colours.gather(1, places)
    if key != "next":
        return colours, asked, asked[:, 0]
    if not pair:
        return colours, asked, colours.gather(1, (places + 1) % 3)[:, 0]
    answers = [number(stands(int(a), int(b))) for a, b in places]
    return colours, asked, torch.tensor(answers)


@cache
def taught(name: str) -> Backbone:
    """Train a tiny model on the language; the same weights at every call."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name,
        vocab_size=len(WORDS),
        **{"num_attention_heads": 4, "num_heads": 4, "intermediate_size": 128, **SIZES[name]},
        pad_token_id=0,
        eos_token_id=1,
    )
    model = CLASSES[ARCHITECTURES[name]].from_config(config).eval()  # dropout off
    steps = STEPS[name]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        loss = _loss(model, name)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return Backbone(model, tokenizer(), architecture=ARCHITECTURES[name], name=name)  # type: ignore[arg-type]


def _loss(model: torch.nn.Module, name: str, size: int = 64) -> Tensor:
    """The loss of one batch, of one key and one kind of question, asked on either side."""
    key = ["", "same", "next", "next"][int(torch.randint(4, ()))]
    colours, asked, answer = questions(size, key, bool(torch.randint(2, ())))

    def column(word: str) -> Tensor:
        return torch.full((size, 1), number(word))

    front = [column(key)] if key else []
    said = torch.cat([*front, colours, column("|")], 1)
    question = torch.cat([asked, column(":")], 1)
    if name == "bert":
        ids = torch.cat([said, question, column("<mask>")], 1)
        return F.cross_entropy(model(input_ids=ids).logits[:, -1], answer)
    start, answers = column("<pad>"), answer[:, None]
    if torch.randint(2, ()):  # the encoder reads the question, or the decoder
        said, decoded = torch.cat([said, question], 1), torch.cat([start, answers], 1)
    else:
        decoded = torch.cat([start, question, answers], 1)
    logits = model(input_ids=said, decoder_input_ids=decoded).logits[:, -2:]
    target = torch.cat([answers, column("<end>")], 1)
    return F.cross_entropy(logits.transpose(1, 2), target)


def sentences(n: int, seed: int) -> list[list[str]]:
    chance = random.Random(seed)
    return [chance.sample(COLOURS, 3) for _ in range(n)]


def classified(n: int, seed: int) -> list[Row]:
    """Sentences with a word and the one that comes next."""
    found = []
    for line, words in enumerate(sentences(n, seed), 1):
        place = line % 3
        fields = {"text": " ".join(words), "asked": words[place], "label": words[(place + 1) % 3]}
        found.append(Row({**fields, "completion": fields["label"]}, f"toy:{line}"))
    return found


def tagged(n: int, seed: int) -> list[Row]:
    """Sentences with the colour that comes next as every word's tag."""
    return [
        Row({"tokens": words, "tags": [*words[1:], words[0]]}, f"toy:{line}")
        for line, words in enumerate(sentences(n, seed), 1)
    ]


def related(n: int, seed: int) -> list[Row]:
    """Sentences with two of their colours and how these stand, each way equally often."""
    places = [(a, b) for a in range(3) for b in range(3) if a != b]
    names = {"before": "Left-Right(e1,e2)", "after": "Left-Right(e2,e1)", "apart": "Other"}
    found = []
    for line, words in enumerate(sentences(n, seed), 1):
        first, second = places[line % 6]
        label = names[stands(first, second)]
        fields = {"text": " ".join(words), "head": words[first], "tail": words[second]}
        found.append(Row({**fields, "label": label}, f"toy:{line}"))
    return found
