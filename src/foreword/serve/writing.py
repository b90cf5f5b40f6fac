"""Writing: one completion under way, from its first token to the text that is given out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from foreword.backbone.backbone import Backbone
from foreword.backbone.decoding_rules import row_seed
from foreword.serve.choose import Chooser
from foreword.serve.request import Completion, Finish, Piece, Request, TokenLogprob
from foreword.serve.writer import Writer

COUNTS = ("tokens_written", "first_tokens", "first_token_microseconds")
"""What is counted of all that is written."""


@dataclass(eq=False)
class Writing:
    """A request, what chooses its tokens, and what was written so far."""

    request: Request
    chooser: Chooser
    writer: Writer
    counts: dict[str, int]
    untold: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    told: int = 0  # of logprobs
    seconds: float = 0.0  # until its first token

    @property
    def backbone(self) -> Backbone:
        """The model that writes."""
        return self.writer.backbone

    def go_on(self, token: int, logprob: TokenLogprob | None) -> Finish | None:
        """Take the next token and tell of it; return why the completion ends here, if it does."""
        if not self.writer.tokens:
            self.seconds = time.monotonic() - self.request.since
            self.counts["first_tokens"] += 1
            self.counts["first_token_microseconds"] += int(1e6 * self.seconds)
        self.counts["tokens_written"] += 1
        if token in self.backbone.ends:
            return "stop"
        stopped = self.writer.add(token)
        self.untold.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        if self.chooser.grammar is not None:
            stopped = self.chooser.grammar.accept(token) or stopped
        if stopped or len(self.writer.tokens) >= self.request.sampling.max_new_tokens:
            return "stop" if stopped else "length"
        self.chooser.text.append(token)
        if self.request.hear is not None and (text := self.writer.more()):
            self.request.tell(Piece(text, *self._untold()))
        return None

    def finish(self, finish: Finish) -> None:
        """Give out the completion."""
        text = self.writer.whole()
        piece = Piece(self.writer.rest(text), *self._untold(), finish)
        tokens, read = tuple(self.writer.tokens), len(self.request.ids)
        made = Completion(text, tokens, tuple(self.logprobs), finish, read, self.seconds)
        self.request.tell(piece)
        self.request.ticket.finish(made)

    def _untold(self) -> tuple[tuple[int, ...], tuple[TokenLogprob, ...]]:
        tokens, logprobs = tuple(self.untold), tuple(self.logprobs[self.told :])
        self.untold, self.told = [], len(self.logprobs)
        return tokens, logprobs


def chooser_for(backbone: Backbone, request: Request, read: Sequence[int]) -> Chooser:
    """Return what chooses a request's tokens; a penalty counts those that were ``read``."""
    how, generator = request.sampling, None
    if how.draws:
        generator = torch.Generator(backbone.device)
        generator.manual_seed(row_seed(how.seed, request.ids))
    return Chooser(how, request.grammar, generator, list(read))
