"""How likely a text that is given is behind a prompt: log-probabilities of its own tokens."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.engine.passes import infer
from foreword.injection import Injection
from foreword.serve.choose import logprob_of
from foreword.serve.request import TokenLogprob


def logprobs_of(
    backbone: Backbone, injection: Injection, ids: Sequence[int], count: int
) -> tuple[TokenLogprob, ...]:
    """Return what each token of a row but the first has, with the ``count`` likeliest there."""
    rest = tuple(ids[1:])
    places = tuple((0, token - 1) for token in range(len(rest)))
    row = Example(tuple(ids[:1]), 1, (rest,), places)
    found: list[TokenLogprob] = []
    for _, logits in infer(backbone, injection, [row] if rest else [], split=True):
        for scores in logits[:, : backbone.vocabulary].float():
            found.append(logprob_of(scores, rest[len(found)], count))
    return tuple(found)
