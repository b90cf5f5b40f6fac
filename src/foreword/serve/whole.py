"""Requests that are decoded whole, group by group: beams, and models that cannot run packed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, completion, continuations
from foreword.backbone.decoding_rules import row_seed, until_end
from foreword.engine.groups import buckets, token_budget
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.serve.request import Completion, Finish, Request, Sampling
from foreword.serve.states import Reading


def check_whole(request: Request) -> None:
    """Raise UserError for what is not there where requests are decoded whole."""
    how = request.sampling
    asked: dict[str, object] = {"logprobs": how.logprobs is not None, "grammar": request.grammar}
    asked |= {
        name: getattr(how, name) for name in ("logit_bias", "presence_penalty", "frequency_penalty")
    }
    for name, given in asked.items():
        if given:
            raise UserError(
                f"`{name}`: needs a causal model whose rows can run packed, and no beams"
            )


def alike(requests: Sequence[Request]) -> list[Request]:
    """Return the first request and those that can be decoded beside it."""
    first = _rules(requests[0].sampling)
    return [request for request in requests if _rules(request.sampling) == first]


def decode_whole(backbone: Backbone, requests: Sequence[Request]) -> None:
    """Decode requests that are :func:`alike` in one batch and end each of them."""
    sampling = requests[0].sampling
    parts: dict[int, Injection] = {id(r.injection): r.injection for r in requests}
    place = {key: number for number, key in enumerate(parts)}
    mixture = Mixture(tuple(parts.values()), [place[id(r.injection)] for r in requests])
    seeds = [row_seed(r.sampling.seed, r.ids) for r in requests]
    found = continuations(backbone, [r.ids for r in requests], mixture, sampling, seeds=seeds)
    for request, ids in zip(requests, found, strict=True):
        tokens = until_end(ids, backbone.ends)
        text = completion(backbone, ids, sampling.stop)
        ended = len(tokens) < sampling.max_new_tokens or text != completion(backbone, ids, ())
        finish: Finish = "stop" if ended else "length"
        if request.ticket.cancelled:
            text, tokens, finish = "", [], "cancelled"
        seconds = time.monotonic() - request.since
        made = Completion(text, tuple(tokens), (), finish, len(request.ids), seconds)
        request.end(made)


def read_whole(backbone: Backbone, readings: Sequence[Reading]) -> None:
    """Run the examples of several readings together, one group after the other."""
    examples = [example for reading in readings for example in reading.examples]
    parts = [part for reading in readings for part in reading.mixture.parts]
    rows: list[int] = []
    before = 0
    for reading in readings:
        rows += [before + row for row in reading.mixture.rows]
        before += len(reading.mixture.parts)
    mixture = Mixture(tuple(parts), rows)
    found: dict[int, Tensor] = {}
    for own in mixture.groups_by_change():
        view = backbone.with_changes(mixture.of_rows(own))
        sizes = [examples[i].length for i in own]
        for group in buckets(sizes, token_budget(backbone), padded=not backbone.can_pack):
            some = [own[i] for i in group]
            with torch.no_grad():
                states = view.states([examples[i] for i in some], mixture.of_rows(some))
            split = torch.split(states, [len(examples[i].targets) for i in some])
            found.update(zip(some, split, strict=True))
    first = 0
    for reading in readings:
        last = first + len(reading.examples)
        reading.done.set_result(torch.cat([found[i] for i in range(first, last)]))
        first = last


def _rules(sampling: Sampling) -> tuple[object, ...]:
    """Return all that decides but the seed, which is each row's."""
    names = [field.name for field in fields(Decoding) if field.name != "seed"]
    return tuple(getattr(sampling, name) for name in names)
