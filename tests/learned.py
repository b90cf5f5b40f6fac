"""Tiny encoders and encoder-decoders that have learned a toy language, so that tasks can be tuned.

The colours stand in a circle. A text is three of them and a question that names one or two of
these; the answer is the first that it names. With the key ``next`` in front it is the colour that
comes next to that one in the circle, or how the two stand there. A prompt has to find what ``next``
says: no row has the word.
"""

from __future__ import annotations

import random
from functools import cache

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast

from families import CLASSES
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from teaching import SEED, START, teach

COLOURS = ["red", "blue", "green", "pink", "grey", "gold"]
STANDS = ["before", "after", "apart"]
NUMBERS = {"before": 1.0, "apart": 2.0, "after": 3.0}
SIGNS = ["<pad>", "<end>", "<mask>", "next", "|", ":"]
WORDS = [*SIGNS, *STANDS, *COLOURS]
FIRST = WORDS.index(COLOURS[0])
ARCHITECTURES = {"bert": "masked", "t5": "encoder-decoder"}
SIZES = {
    "bert": {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
    },
    "t5": {
        "d_model": 64,
        "d_kv": 32,
        "d_ff": 128,
        "num_heads": 2,
        "num_layers": 2,
        "decoder_start_token_id": 0,
    },
}
STEPS = {"bert": 600, "t5": 600}


def number(word: str) -> int:
    return WORDS.index(word)


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="<end>",
        mask_token="<mask>",
        chat_template="{{ messages[-1]['content'] }}",  # the language has no words for roles
    )


def following(colour: str) -> str:
    return COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)]


def stands(first: str, second: str) -> str:
    """How two colours stand in the circle."""
    return (
        "before"
        if following(first) == second
        else "after"
        if following(second) == first
        else "apart"
    )


def questions(size: int, key: str, words: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences (B, 3), what is asked of them (B, words), and the answers (B,)."""
    colours = torch.rand(size, len(COLOURS)).argsort(1)[:, :3] + FIRST
    asked = colours.gather(1, torch.rand(size, 3).argsort(1)[:, :words])
    answers = asked[:, 0]
    if key == "next" and words == 1:
        answers = (answers - FIRST + 1) % len(COLOURS) + FIRST
    elif key == "next":
        pairs = [(COLOURS[a - FIRST], COLOURS[b - FIRST]) for a, b in asked.tolist()]
        answers = torch.tensor([number(stands(*pair)) for pair in pairs])
    return colours, asked, answers


@cache
def taught(name: str) -> Backbone:
    """Train a tiny model on the language; the same weights at every call."""
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(
        name,
        vocab_size=len(WORDS),
        **{"intermediate_size": 128, **SIZES[name]},
        pad_token_id=0,
        eos_token_id=1,
        initializer_range=START,
    )
    model = CLASSES[ARCHITECTURES[name]].from_config(config).eval()  # dropout off
    teach(model, lambda: _loss(model, name), STEPS[name], 4e-3)
    return Backbone(model, tokenizer(), architecture=ARCHITECTURES[name], name=name)  # type: ignore[arg-type]


def _loss(model: PreTrainedModel, name: str, size: int = 32) -> Tensor:
    """The loss of one batch, of one key and one kind of question.

    An encoder-decoder reads questions of one word alone; of two it learns poorly. Its decoder reads
    half of them, and in the encoder's place; see ``Tag``.
    """
    key = ["", "next", "next"][int(torch.randint(3, ()))]
    decodes = name == "t5" and not torch.randint(2, ())
    words = 1 if name == "t5" else 1 + min(1, int(torch.randint(3, ())))
    colours, asked, answer = questions(size, key, words)

    def column(word: str) -> Tensor:
        return torch.full((size, 1), number(word))

    front = [column(key)] if key else []
    said = torch.cat([*front, colours, column("|")], 1)
    question = torch.cat([asked, column(":")], 1)
    if name == "bert":
        ids = torch.cat([said, question, column("<mask>")], 1)
        return F.cross_entropy(model(input_ids=ids).logits[:, -1], answer)
    start, answers = column("<pad>"), answer[:, None]
    if decodes:
        decoded = torch.cat([start, question, answers], 1)
    else:
        said, decoded = torch.cat([said, question], 1), torch.cat([start, answers], 1)
    logits = model(input_ids=said, decoder_input_ids=decoded).logits[:, -2:]
    target = torch.cat([answers, column("<end>")], 1)
    return F.cross_entropy(logits.transpose(1, 2), target)


def sentences(n: int, seed: int) -> list[list[str]]:
    chance = random.Random(seed)
    return [chance.sample(COLOURS, 3) for _ in range(n)]


def classified(n: int, seed: int) -> list[Row]:
    """Sentences, one of their colours, and the one that comes next to that."""
    found = []
    for line, words in enumerate(sentences(n, seed), 1):
        asked = words[line % 3]
        fields = {"text": " ".join(words), "asked": asked, "label": following(asked)}
        found.append(Row({**fields, "completion": following(asked)}, f"toy:{line}"))
    return found


def tagged(n: int, seed: int) -> list[Row]:
    """Sentences with the colour that comes next to each word as its tag."""
    return [
        Row({"tokens": words, "tags": [following(word) for word in words]}, f"toy:{line}")
        for line, words in enumerate(sentences(n, seed), 1)
    ]


def spoken(n: int, seed: int) -> list[Row]:
    """The sentences of ``classified`` as conversations of two turns, and as histories to choose."""
    found = []
    for row in classified(n, seed):
        asked = f"{row.fields['text']} | {row.fields['asked']} :"
        turns = [("user", asked), ("assistant", row.fields["completion"])]
        messages = [{"role": role, "content": said} for role, said in turns]
        choice = {"history": asked, "candidates": COLOURS, "answer": row.fields["completion"]}
        found.append(Row({"messages": messages, **choice}, row.where))
    return found


def passages(n: int, seed: int) -> list[Row]:
    """Sentences that hold a colour and the one that comes next to it, which is the answer."""
    found = []
    chance = random.Random(seed)
    for line in range(1, n + 1):
        asked = chance.choice(COLOURS)
        answer = following(asked)
        other = chance.choice([colour for colour in COLOURS if colour not in (asked, answer)])
        words = chance.sample([asked, answer, other], 3)
        fields = {"context": " ".join(words), "question": asked, "answers": [answer]}
        found.append(Row(fields, f"toy:{line}"))
    return found


def related(n: int, seed: int) -> list[Row]:
    """Sentences with two of their colours and how these stand, each way equally often.

    It is said as a relation, as a list of labels that is empty for colours apart, and as a number.
    """
    names = {"before": "Left-Right(e1,e2)", "after": "Left-Right(e2,e1)", "apart": "Other"}
    chance = random.Random(seed)
    found = []
    for line in range(1, n + 1):
        head = chance.choice(COLOURS)
        wanted = STANDS[line % 3]
        tail = chance.choice([c for c in COLOURS if c != head and stands(head, c) == wanted])
        words = [head, tail, chance.choice([c for c in COLOURS if c not in (head, tail)])]
        fields = {"text": " ".join(chance.sample(words, 3)), "head": head, "tail": tail}
        fields["label"] = names[wanted]
        told = {"labels": [] if wanted == "apart" else [wanted], "number": NUMBERS[wanted]}
        found.append(Row({**fields, **told}, f"toy:{line}"))
    return found
