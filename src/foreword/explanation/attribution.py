"""Attribution of one answer to the input's tokens and to the prompt's, by integrated gradients.

The answer's log-probability is followed from a neutral input to the real one, in a straight line:
its gradients along the way say what each token contributes (captum computes them). In the neutral
input, every token of the row and every virtual one reads as a token that says nothing (padding, the
end of a text, on a masked model the mask), and values of a prefix are zero; its keys stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.explanation.answered import answer
from foreword.explanation.explanation import Attribution, Contribution
from foreword.explanation.pieces import placed, virtual_of
from foreword.injection import KV, Injection, Mixture
from foreword.reporter import Reporter
from foreword.tasks.base import Bound

STEPS = 8
"""Points of a stretch of the way at which gradients are taken (Gauss and Legendre)."""

NEAR = 0.02
"""The sum of the stretches' deltas that is near enough, as a share of all tokens' contributions.

Of these, and not of the whole difference, which may be small where large ones cancel out.
"""

SPLITS = 16
"""How often the stretch whose delta is largest is parted in two, at most.

Where states are normed most of the way's change is near its neutral end, and even points miss it.
"""

TOKENS = 512
"""Tokens of the points that are run side by side."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """A stretch of the way, from ``start`` to ``end`` of 0 to 1, and what was found along it."""

    start: float
    end: float
    found: tuple[Tensor, ...]
    delta: float


def attribute(bound: Bound, row: Row, injection: Injection, report: Reporter) -> Attribution:
    """Attribute the answer that the prompt gives to a row; raises UserError where it cannot."""
    backbone = bound.backbone
    if backbone.is_encoder:
        raise UserError("an encoder's pooled state is of real tokens, and gradients ask for others")
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise UserError("needs captum: pip install 'foreword[explain]'") from None
    said = answer(bound, row, injection)
    (example,), injection = placed(backbone, [said.item.example], injection)
    virtual = virtual_of(injection)
    real = [token for token in example.ids if token < backbone.vocabulary]
    numbers = iter(range(backbone.vocabulary + virtual, backbone.vocabulary + virtual + len(real)))
    ids = tuple(t if t >= backbone.vocabulary else next(numbers) for t in example.ids)
    item = replace(said.item, example=replace(example, ids=ids, bos=0))
    view, sites = backbone.with_changes(injection), list(injection.kv)
    blank = neutral(backbone)
    inputs = [backbone.embed(real).float()]
    baselines = [blank.expand_as(inputs[0])]
    if injection.embeds is not None:
        own = injection.embeds.to(backbone.device).float()
        inputs.append(own)
        baselines.append(blank.expand_as(own))
    for site in sites:
        values = injection.kv[site].values.to(backbone.device).float()
        inputs.append(values)
        baselines.append(torch.zeros_like(values))

    def log_probability(rows: Tensor, *others: Tensor) -> Tensor:
        """Return the answer's log-probability at B points: (B, tokens, width), ... -> (B,)."""
        parts = []
        for n in range(len(rows)):
            rest = [other[n] for other in others]
            tokens = rows[n]
            if injection.embeds is not None:
                tokens = torch.cat([rest.pop(0), tokens])
            kv = {s: KV(injection.kv[s].keys, v) for s, v in zip(sites, rest, strict=True)}
            parts.append(replace(injection, embeds=tokens, kv=kv))
        items = [item] * len(parts)
        mixture = Mixture(tuple(parts), range(len(parts)))
        states = view.states([each.example for each in items], mixture)
        return -bound.losses(view.logits(states, bound.tokens), items)

    def at(place: float) -> tuple[Tensor, ...]:
        return tuple(
            torch.lerp(start, end, place)[None]
            for start, end in zip(baselines, inputs, strict=True)
        )

    def along(start: float, end: float) -> Stretch:
        method: Any = IntegratedGradients(counted)
        found, delta = method.attribute(
            at(end),
            baselines=at(start),
            n_steps=STEPS,
            internal_batch_size=max(1, TOKENS // item.example.length),
            return_convergence_delta=True,
        )
        return Stretch(start, end, tuple(each[0] for each in found), float(delta))

    with report.bar("attribution", (1 + 2 * SPLITS) * STEPS) as progress:

        def counted(*given: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                progress(len(given[0]))
            return log_probability(*given)

        with torch.no_grad():
            baseline, answered = (float(log_probability(*at(place))) for place in (0.0, 1.0))
        stretches = [along(0, 1)]
        for _ in range(SPLITS):
            size = sum(float(part.sum(-1).abs().sum()) for s in stretches for part in s.found)
            if sum(abs(each.delta) for each in stretches) <= NEAR * size:
                break
            worst = max(stretches, key=lambda each: abs(each.delta))
            stretches.remove(worst)
            middle = (worst.start + worst.end) / 2
            stretches += [along(worst.start, middle), along(middle, worst.end)]
    found = [torch.stack(parts).sum(0) for parts in zip(*(s.found for s in stretches), strict=True)]
    return Attribution(
        text=bound.text_of(row),
        answer=said.text,
        answered=answered,
        baseline=baseline,
        delta=sum(each.delta for each in stretches),
        tokens=_named(backbone, real, found[0].sum(1).tolist()),
        virtual=_of_prompt(injection, found[1:]),
    )


def neutral(backbone: Backbone) -> Tensor:
    """Return the embedding of a token that says nothing, (width,): the mask, padding or an end."""
    tokenizer = backbone.text.tokenizer
    ids = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    if backbone.fills_masks:
        ids.insert(0, tokenizer.mask_token_id)
    known = [token for token in ids if token is not None and 0 <= token < backbone.vocabulary]
    return backbone.embed([known[0] if known else 0]).float()[0]


def _named(
    backbone: Backbone, ids: Sequence[int], values: Sequence[float]
) -> tuple[Contribution, ...]:
    decode = backbone.text.tokenizer.decode
    names = [str(decode([token], clean_up_tokenization_spaces=False)) for token in ids]
    return tuple(Contribution(*pair) for pair in zip(names, values, strict=True))


def _of_prompt(injection: Injection, found: Sequence[Tensor]) -> tuple[Contribution, ...]:
    """Add up what a prompt contributes by virtual token and by position, over all layers."""
    made, rest = list[Contribution](), list(found)
    if injection.embeds is not None:
        values = rest.pop(0).sum(1).tolist()
        made += [Contribution(f"token {n}", value) for n, value in enumerate(values)]
    longest = max((each.shape[1] for each in rest), default=0)
    sums = torch.zeros(longest)
    for each in rest:
        sums[: each.shape[1]] += each.sum((0, 2)).cpu()
    return (*made, *(Contribution(f"position {n}", v) for n, v in enumerate(sums.tolist())))
