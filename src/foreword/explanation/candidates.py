"""Texts that may say what a prompt does, by asking and by the nearest tokens; and controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, decode
from foreword.backbone.decoding_rules import row_seed
from foreword.errors import UserError
from foreword.explanation.explanation import Kind
from foreword.explanation.pieces import virtual_of
from foreword.injection import Injection, Mixture
from foreword.tasks.base import Bound
from foreword.tasks.phrases import phrase_in
from foreword.tasks.templates.template import Field, VirtualTokens

QUESTIONS = ("\nIn other words, the task is to", "\nTo sum up, for each text you should")
"""What the model goes on from behind a prompt that stands in front."""

FRAMED = (". In other words, please", ". That means, you should")
"""What it goes on from behind virtual tokens in a template, after the template's text so far."""

CONTROLS = ("The library opens at nine in the morning.", "A tree stood beside the long road.")
"""Lines that say nothing of any task."""

WRITTEN = 16
"""The most tokens of a text that the model writes."""

TEMPERATURE = 0.7


@dataclass(frozen=True)
class Candidate:
    """A text, its kind, and where it comes from."""

    text: str
    kind: Kind
    source: str


@dataclass(frozen=True, eq=False)
class Opening:
    """Token ids that the model goes on from under an injection, and what to call their source."""

    ids: Sequence[int]
    injection: Injection
    source: str
    seed: int


def written(
    backbone: Backbone, openings: Sequence[Opening], kind: Kind, samples: int
) -> list[Candidate]:
    """Let the model go on from each opening: once as is likeliest, then at random.

    The openings are read side by side, one pass of the model for the next token of all.
    """
    made: list[list[Candidate]] = [[] for _ in openings]
    mixture = Mixture(tuple(each.injection for each in openings), range(len(openings)))
    rows = [list(each.ids) for each in openings]
    for number in range(samples):
        decoding = Decoding(
            max_new_tokens=WRITTEN, temperature=TEMPERATURE if number else 0.0, stop=("\n",)
        )
        seeds = [row_seed(each.seed, (number,)) for each in openings]
        texts = decode(backbone, rows, mixture, decoding, seeds=seeds)
        for own, opening, text in zip(made, openings, texts, strict=True):
            own.append(Candidate(text, kind, opening.source))
    return [each for own in made for each in own]


def asked(bound: Bound, injection: Injection, samples: int, seed: int) -> list[Candidate]:
    """Ask the model under the prompt what it says; raises UserError for one that writes nothing."""
    backbone = bound.backbone
    if not backbone.can_generate:
        raise UserError(f"a model of kind {backbone.architecture} writes no texts")
    openings = []
    for question in QUESTIONS if not bound.virtual else FRAMED:
        question = phrase_in(bound.task.language, question)
        ids = [*_framed(bound), *backbone.text.ids(question)]
        shown = question.strip(" .。\n")
        openings.append(Opening(ids, injection, f"asked: {shown} ...", seed))
    return written(backbone, openings, "asked", samples)


def _framed(bound: Bound) -> list[int]:
    """Return the template's tokens up to its last virtual ones before any field."""
    parts = list(bound.template.parts)
    stop = next((n for n, part in enumerate(parts) if isinstance(part, Field)), len(parts))
    places = [n for n, part in enumerate(parts[:stop]) if isinstance(part, VirtualTokens)]
    if not places:  # of one that stands behind a field, or nowhere
        return list(range(bound.backbone.vocabulary, bound.backbone.vocabulary + bound.virtual))
    ids: list[int] = []
    starts = iter(bound.starts())
    virtual = bound.backbone.vocabulary
    for part in parts[: places[-1] + 1]:
        if isinstance(part, VirtualTokens):
            size = next(starts)[0]
            ids += range(virtual, virtual + size)
            virtual += size
        elif isinstance(part, str):
            ids += bound.backbone.text.ids(part)
    return ids


def controls(language: str | None) -> Iterator[Candidate]:
    """Yield lines whose share of the gain is that of any text at all."""
    for text in CONTROLS:
        text = phrase_in(language, text)
        yield Candidate(text, "control", "says nothing of any task")


def nearest(backbone: Backbone, injection: Injection) -> Candidate:
    """Return the tokens whose embeddings are nearest to the virtual ones, by the cosine.

    Raises UserError for a prompt of keys and values.
    """
    if not virtual_of(injection):
        raise UserError("keys and values are no embeddings, to which tokens could be near")
    assert injection.embeds is not None
    own = F.normalize(injection.embeds.to(backbone.device).float(), dim=1)
    with torch.no_grad():
        table = F.normalize(backbone.embed(range(backbone.vocabulary)).float(), dim=1)
        ids = (own @ table.T).argmax(1).tolist()
    return Candidate(backbone.text.decode(ids), "nearest", "nearest token embeddings")
