"""Words searched by gradient, so that the untouched model answers with them as under the prompt.

One word at a time is exchanged, the one that the gradient says lowers the loss most (HotFlip,
Ebrahimi et al. 2018, arXiv:1712.06751; AutoPrompt, Shin et al. 2020), as long as a loss that is run
agrees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foreword.backbone.example import common_lead
from foreword.data.row import Row
from foreword.engine.groups import token_budget
from foreword.engine.passes import differentiate, infer
from foreword.explanation.answered import answer
from foreword.explanation.candidates import Candidate
from foreword.grammar import counted
from foreword.injection import Injection
from foreword.reporter import Reporter
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for

WORDS = 6
"""How many words there are."""

ROUNDS = 8
"""The most words that are exchanged."""

TRIED = 4
"""Exchanges of a round whose loss is run."""


def search_words(
    bound: Bound, rows: Sequence[Row], injection: Injection, report: Reporter
) -> Candidate:
    """Search words by the prompt's own answers to rows; raises UserError where it gives no such."""
    backbone, bare = bound.backbone, bound.zero_shot()
    field = bound.task.pair[1]
    room = room_for(backbone, injection) - WORDS
    items = []
    for row in rows:
        said = answer(bound, row, injection).text
        items.append(bare.train_example(Row({**row.fields, field: said}, row.where), room))
    start = backbone.text.ids(bound.instruction())[:WORDS]
    ids = (start * WORDS)[:WORDS]
    best = _loss(bare, items, ids)
    with report.bar("searching words", ROUNDS) as progress:
        for _ in range(ROUNDS):
            found = [(_loss(bare, items, other), other) for other in exchanges(bare, items, ids)]
            loss, other = min(found, default=(best, ids))
            progress(1)
            if loss >= best:
                break
            best, ids = loss, other
    return Candidate(
        backbone.text.decode(ids), "searched", f"words searched on {counted(len(rows), 'row')}"
    )


def _embedded(bound: Bound, ids: Sequence[int]) -> Tensor:
    return bound.backbone.embed(ids).float()


def _loss(bound: Bound, items: Sequence[Encoded], ids: Sequence[int]) -> float:
    """Return the loss of rows behind words, summed."""
    injection = Injection(embeds=_embedded(bound, ids), leading=len(ids))
    examples = [item.example for item in items]
    loss = 0.0
    for group, logits in infer(bound.backbone, injection, examples, tokens=bound.tokens):
        loss += float(bound.losses(logits, [items[i] for i in group]).sum())
    return loss


def exchanges(
    bound: Bound, items: Sequence[Encoded], ids: Sequence[int], most: int = TRIED
) -> list[list[int]]:
    """Return the words with one of them exchanged, those that the gradient says are best first.

    ``bound`` reads the rows of ``items`` behind the words, and has no virtual tokens of its own.
    """
    backbone = bound.backbone
    examples = [item.example for item in items]
    embeds = _embedded(bound, ids).requires_grad_()
    differentiate(
        backbone,
        lambda: Injection(embeds=embeds, leading=len(ids)),
        examples,
        common_lead(examples),
        max(example.length for example in examples),
        token_budget(backbone),
        lambda group, logits: bound.losses(logits, [items[i] for i in group]).sum(),
        tokens=bound.tokens,
    )
    assert embeds.grad is not None
    with torch.no_grad():
        table = _embedded(bound, range(backbone.vocabulary))
        # The loss, to first order, once token v stands at place i in place of the one there.
        change = embeds.grad @ table.T - (embeds.grad * embeds).sum(1, keepdim=True)
    found: list[list[int]] = []
    for flat in change.flatten().argsort()[: 64 * most].tolist():
        place, token = divmod(flat, backbone.vocabulary)
        if token != ids[place] and _is_word(bound, token):
            found.append([*ids[:place], token, *ids[place + 1 :]])
        if len(found) == most:
            break
    return found


def _is_word(bound: Bound, token: int) -> bool:
    """Whether a token is a word of letters, which reads as itself."""
    text = bound.backbone.text.decode([token])
    return text.strip().isalpha() and bound.backbone.text.ids(text) == [token]
