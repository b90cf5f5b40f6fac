"""Choosing: the next token of each row from its scores, by the rules of its own request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from foreword.serve.request import Grammar, Sampling, TokenLogprob

FEW = 1024
"""The likeliest tokens, among which those are looked for that hold a probability."""


@dataclass(eq=False)
class Chooser:
    """What decides the tokens of one request. ``text`` are the tokens of its row, and its own."""

    sampling: Sampling
    grammar: Grammar | None
    generator: torch.Generator | None  # None takes the likeliest token
    text: list[int]

    def __post_init__(self) -> None:
        """Keep where the completion begins."""
        self.read = len(self.text)

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken, by the model's own scores."""
        penalty = self.sampling.repetition_penalty
        shifted = penalty != 1 or self.sampling.shifts
        return self.generator is None and self.grammar is None and not shifted

    def choose(self, scores: Tensor) -> int:
        """Return a token, by the scores (vocabulary,) of the model."""
        how, row = self.sampling, scores[None]
        if how.shifts:
            row = self._shifted(scores)[None]
        if how.repetition_penalty != 1:
            real = [token for token in self.text if token < len(scores)]
            penalize = RepetitionPenaltyLogitsProcessor(float(how.repetition_penalty))
            row = penalize(torch.tensor([real], device=scores.device), row)
        if self.grammar is not None:
            row = self.grammar.allow(row[0])[None]
        if self.generator is None:
            return int(row.argmax(1))
        row = TemperatureLogitsWarper(float(how.temperature))(None, row)
        if how.top_p < 1:
            row = _likeliest(row, how.top_p)
        return int(torch.multinomial(row.softmax(1), 1, generator=self.generator))

    def _shifted(self, scores: Tensor) -> Tensor:
        """Return scores (vocabulary,) with what is added to them, and taken from them."""
        how, shifts = self.sampling, dict[int, float]()
        for token, bias in how.logit_bias:
            shifts[token] = shifts.get(token, 0.0) + bias
        for token, count in Counter(self.text[self.read :]).items():
            taken = how.presence_penalty + how.frequency_penalty * count
            shifts[token] = shifts.get(token, 0.0) - taken
        places = torch.tensor(list(shifts), dtype=torch.long, device=scores.device)
        return scores.index_add(0, places, scores.new_tensor(list(shifts.values())))

    def logprob(self, scores: Tensor, token: int) -> TokenLogprob | None:
        """Return what is told of a token's likelihood, if anything."""
        count = self.sampling.logprobs
        return None if count is None else logprob_of(scores, token, count)


def logprob_of(scores: Tensor, token: int, count: int) -> TokenLogprob:
    """Return a token's log-probability, and the ``count`` likeliest, by scores (vocabulary,)."""
    logs = scores.log_softmax(0)
    top = logs.topk(min(count, len(logs))) if count else None
    pairs = () if top is None else zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return TokenLogprob(token, float(logs[token]), tuple(pairs))


def _likeliest(row: Tensor, top_p: float) -> Tensor:
    """Return scores (1, vocabulary) without all but the likeliest that hold a probability.

    As transformers' own rule does, which sorts the whole vocabulary.
    """
    values, places = row.topk(min(FEW, row.shape[1]))
    chances = (values - row.logsumexp(1, keepdim=True)).exp()
    before = chances.cumsum(1) - chances
    if float(before[0, -1] + chances[0, -1]) < top_p and len(places[0]) < row.shape[1]:
        sorted_out: Tensor = TopPLogitsWarper(top_p)(None, row)
        return sorted_out
    kept = values.masked_fill(before >= top_p, -torch.inf)
    return torch.full_like(row, -torch.inf).scatter(1, places, kept)


def choose(
    logits: Tensor, choosers: Sequence[Chooser]
) -> list[tuple[int, TokenLogprob | None] | Exception]:
    """Choose each row's token, (B, vocabulary) -> B; an error is that of its row alone."""
    scores = logits.float()
    best, likeliest = scores.max(1)
    numbers, tokens = (~best.isnan()).tolist(), likeliest.tolist()
    found: list[tuple[int, TokenLogprob | None] | Exception] = []
    for n, chooser in enumerate(choosers):
        try:
            if not numbers[n]:
                raise ValueError("the model's scores of this row are not numbers")
            token = tokens[n] if chooser.plain else chooser.choose(scores[n])
            found.append((token, chooser.logprob(scores[n], token)))
        except Exception as error:  # of any kind: the other rows go on
            found.append(error)
    return found
