"""Requests that are decoded in batches from beginning to end: of models that cannot run packed.

So are those of beams, on every model. The others are written as the loop writes them, each by its
own rules and told as it grows; ``generate`` only runs the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor
from transformers import LogitsProcessor

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding, batches, completion, continuations
from foreword.backbone.decoding_rules import row_seed, until_end
from foreword.backbone.run.encoder_decoder import decoder_start
from foreword.engine.groups import buckets, token_budget
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.serve.choose import choose
from foreword.serve.request import Completion, Finish, Request, Sampling
from foreword.serve.states import Reading
from foreword.serve.writer import Writer
from foreword.serve.writing import COUNTS as WRITTEN
from foreword.serve.writing import Writing, chooser_for

Asked = TypeVar("Asked", Request, Reading)

COUNTS = ("finished", *WRITTEN, "parted")
"""What is counted; ``parted`` are the groups that failed and were run again one by one."""


class WholeLoop:
    """The part of the engine's work that is done in batches. Only its thread may call this."""

    def __init__(self, backbone: Backbone, slots: int) -> None:
        self.backbone, self.slots = backbone, slots
        self.requests: list[Request] = []
        self.readings: list[Reading] = []
        self.counts = dict.fromkeys(COUNTS, 0)

    @property
    def waiting(self) -> int:
        """How much was asked and not begun."""
        return len(self.requests) + len(self.readings)

    def take(self, asked: Request | Reading) -> None:
        """Put it into its queue."""
        if isinstance(asked, Request):
            self.requests.append(asked)
        else:
            self.readings.append(asked)

    def step(self) -> None:
        """Decode a batch of requests, and run all readings."""
        self.requests, self.readings = _wanted(self.requests), _wanted(self.readings)
        if self.requests:
            group = _alike(self.requests[: self.slots])
            self.requests = [request for request in self.requests if request not in group]
            self._try(group, self._decode)
            self.counts["finished"] += len(group)
        if self.readings:
            readings, self.readings = self.readings, []
            self._try(readings, lambda some: read_whole(self.backbone, some))

    def end_all(self, error: BaseException) -> None:
        """Tell all that wait of a fault that is not theirs."""
        for request in self.requests:
            request.fail(error)
        for reading in self.readings:
            reading.fail(error)
        self.requests, self.readings = [], []

    def _try(self, asked: list[Asked], run: Callable[[list[Asked]], None]) -> None:
        """Run several together, and where that fails one by one: a fault is that of its own."""
        try:
            run(asked)
        except Exception as error:  # of any kind: it is told to whose it is
            left = [each for each in asked if not each.over]
            if len(asked) == 1:
                for each in left:
                    each.fail(error)
                return
            self.counts["parted"] += 1
            for each in left:
                self._try([each], run)

    def _decode(self, requests: list[Request]) -> None:
        if requests[0].sampling.beams > 1:
            decode_beams(self.backbone, requests)
        else:
            decode(self.backbone, requests, self.counts)


def check_beams(request: Request) -> None:
    """Raise UserError for what does not go with beams."""
    how = request.sampling
    asked: dict[str, object] = {"logprobs": how.logprobs is not None, "grammar": request.grammar}
    asked |= {
        name: getattr(how, name) for name in ("logit_bias", "presence_penalty", "frequency_penalty")
    }
    for name, given in asked.items():
        if given:
            raise UserError(f"`{name}` goes without beams; leave one of the two out")


def _alike(requests: Sequence[Request]) -> list[Request]:
    """Return the first request and those that can be decoded beside it."""
    first = _rules(requests[0].sampling)
    return [request for request in requests if _rules(request.sampling) == first]


def _rules(sampling: Sampling) -> tuple[object, ...]:
    """Return what all requests of a batch must have alike: with beams, all but the seed."""
    if sampling.beams == 1:
        return ()
    names = [field.name for field in fields(Decoding) if field.name != "seed"]
    return tuple(getattr(sampling, name) for name in names)


def _mixture(requests: Sequence[Request]) -> Mixture:
    parts: dict[int, Injection] = {id(r.injection): r.injection for r in requests}
    place = {key: number for number, key in enumerate(parts)}
    return Mixture(tuple(parts.values()), [place[id(r.injection)] for r in requests])


def decode(backbone: Backbone, requests: Sequence[Request], counts: dict[str, int]) -> None:
    """Decode requests, each by its own rules, and tell what is written as it is written."""
    rows, mixture = [request.ids for request in requests], _mixture(requests)
    for own in batches(backbone, rows, mixture):
        some = [_begin(backbone, requests[n], counts) for n in own]
        most = max(each.request.sampling.max_new_tokens for each in some)
        part, how = mixture.of_rows(own), Decoding(max_new_tokens=most)
        try:
            continuations(backbone, [rows[n] for n in own], part, how, rules=[_Choice(some)])
        except _AllWritten:
            continue
        except Exception as error:  # what was told of cannot begin again
            for each in some:
                if each.writer.tokens and not each.request.over:
                    each.request.fail(error)
            raise


def _begin(backbone: Backbone, request: Request, counts: dict[str, int]) -> Writing:
    # A decoder writes a text of its own, and what it starts with is counted as generate does.
    read = [decoder_start(backbone)] if backbone.has_two_stacks else request.ids
    writer = Writer(backbone, request.sampling.stop)
    return Writing(request, chooser_for(backbone, request, read), writer, counts)


class _AllWritten(Exception):  # noqa: N818 - nothing went wrong
    """Ends a batch whose completions are all finished."""


class _Choice(LogitsProcessor):
    """Leaves each row the one token that its request's own rules choose."""

    def __init__(self, writings: Sequence[Writing]) -> None:
        self.writings = writings

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Choose and tell of each row's next token: (B, scored) -> (B, scored)."""
        left = [n for n, each in enumerate(self.writings) if not each.request.over]
        for n in [n for n in left if self.writings[n].request.cancelled]:
            self.writings[n].finish("cancelled")
            left.remove(n)
        tokens = [0] * len(self.writings)
        if left:
            own = [self.writings[n] for n in left]
            known = scores[left][:, : own[0].backbone.vocabulary]
            found = choose(known, [each.chooser for each in own])
            for n, each, made in zip(left, own, found, strict=True):
                try:
                    if isinstance(made, Exception):
                        raise made
                    if (finish := each.go_on(*made)) is not None:
                        each.finish(finish)
                    tokens[n] = made[0]
                except Exception as error:  # its own; the other rows go on
                    each.request.fail(error)
        if all(each.request.over for each in self.writings):
            raise _AllWritten
        chosen = torch.tensor(tokens, device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def decode_beams(backbone: Backbone, requests: Sequence[Request]) -> None:
    """Decode requests that are alike in one batch of beams and end each of them."""
    sampling = requests[0].sampling
    rows, seeds = [r.ids for r in requests], [row_seed(r.sampling.seed, r.ids) for r in requests]
    found = continuations(backbone, rows, _mixture(requests), sampling, seeds=seeds)
    for request, ids in zip(requests, found, strict=True):
        tokens = until_end(ids, backbone.ends)
        text = completion(backbone, ids, sampling.stop)
        ended = len(tokens) < sampling.max_new_tokens or text != completion(backbone, ids, ())
        finish: Finish = "stop" if ended else "length"
        if request.cancelled:
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


def _wanted(asked: Sequence[Asked]) -> list[Asked]:
    """Return those that somebody waits for, and end the others."""
    left = []
    for each in asked:
        if each.cancelled:
            each.drop()
        else:
            left.append(each)
    return left
