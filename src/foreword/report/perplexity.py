"""Perplexity: how well a model predicts texts, with a prompt in front and without."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import torch
import torch.nn.functional as F

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.engine.passes import infer
from foreword.injection import NOTHING, Injection
from foreword.tasks.templates.layout import room_for

WINDOW = 128
"""Tokens of a text that are read in one piece."""

BEGUN = 8
"""Tokens of a text that are read before the first that counts."""

EVERY = 7
"""Of so many tokens of a text one is hidden from a masked model, which has to find it."""


@dataclass(frozen=True)
class Perplexity:
    """How many tokens a model hesitates between, before and after; of so many ``tokens``."""

    name: str
    tokens: int
    before: float
    after: float


def plain_texts() -> list[tuple[str, str]]:
    """Return pieces of plain prose, each with nothing in front of it."""
    text = (files("foreword.report") / "texts" / "plain.txt").read_text("utf-8")
    return [("", part.strip()) for part in text.split("\n\n") if part.strip()]


def questions() -> list[tuple[str, str]]:
    """Return everyday questions with their answers, of which the answers count."""
    text = (files("foreword.report") / "texts" / "questions.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in rows]


def measure_perplexity(
    backbone: Backbone, injection: Injection, texts: Sequence[tuple[str, str]], name: str
) -> Perplexity:
    """Score texts, each behind the text in front of it, with an injection and without.

    The head of an injection scores classes, not words, and has no part in it.
    """
    examples = [each for pair in texts for each in _examples(backbone, injection, *pair)]
    count = sum(len(each.answers) for each in examples)
    if not count:
        return Perplexity(name, 0, 1.0, 1.0)
    without_head = replace(injection, head=None)
    before, after = (
        math.exp(min(50.0, _loss(backbone, each, examples) / count))
        for each in (NOTHING, without_head)
    )
    return Perplexity(name, count, before, after)


def _examples(backbone: Backbone, injection: Injection, before: str, text: str) -> list[Example]:
    """Lay a text out: the tokens that count are its own, each read behind all before it."""
    room = min(WINDOW, room_for(backbone, injection) - 4)
    first, last = backbone.text.around
    lead, own = backbone.text.ids(before), backbone.text.ids(text)
    if backbone.fills_masks:
        lead = lead[-room // 2 :]
        return _masked(backbone, (*first, *lead), own[: room - len(lead)], last)
    if not before:
        begun = len(own[:room]) // 2 if backbone.has_two_stacks else BEGUN
        lead, own = own[:begun], own[begun:]
    lead = lead[-room // 2 :]
    own = own[: max(0, room - len(lead))]
    if not own:
        return []
    ids = (*first, *lead) if backbone.is_causal else (*first, *lead, *last)
    targets = tuple((0, j) for j in range(-1, len(own) - 1))
    bos = len(first) if backbone.is_causal else 0
    return [Example(ids, len(ids), (tuple(own),), targets, tuple(own), bos)]


def _masked(
    backbone: Backbone, lead: tuple[int, ...], own: Sequence[int], last: tuple[int, ...]
) -> list[Example]:
    """Hide some of a text's tokens, each in an example of its own."""
    mask = backbone.text.mask
    assert mask is not None  # a masked model without one serves no task
    return [
        Example(
            (*lead, *own[:at], *own[at + 1 :], *last),
            len(lead) + at,
            ((mask,),),
            ((0, 0),),
            (own[at],),
        )
        for at in range(min(EVERY, len(own)) - 1, len(own), EVERY)
    ]


def _loss(backbone: Backbone, injection: Injection, examples: Sequence[Example]) -> float:
    """Return the sum of all tokens' cross entropies, in nats."""
    total = 0.0
    for group, logits in infer(backbone, injection, examples):
        gold = torch.tensor([a for n in group for a in examples[n].answers], device=logits.device)
        total += float(F.cross_entropy(logits.float(), gold, reduction="sum"))
    return total
