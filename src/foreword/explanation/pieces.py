"""The pieces of a prompt, and the prompt without some of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.injection import KV, Injection

NO_TOKENS = "the prompt has no virtual tokens and no keys and values"


def positions_of(injection: Injection) -> int:
    """Return the positions that keys and values have in every layer; 0 where layers differ."""
    sizes = {kv.keys.shape[1] for kv in injection.kv.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def virtual_of(injection: Injection) -> int:
    """Return the number of virtual tokens."""
    return 0 if injection.embeds is None else len(injection.embeds)


def without_tokens(injection: Injection, numbers: Collection[int]) -> Injection:
    """Return the injection without some of its virtual tokens; those that follow move up."""
    assert injection.embeds is not None
    kept = [n for n in range(len(injection.embeds)) if n not in numbers]
    return replace(
        injection,
        embeds=injection.embeds[kept],
        leading=sum(n < injection.leading for n in kept),
        bos=sum(n < injection.bos for n in kept) if not injection.kv else injection.bos,
    )


def without_virtual(
    examples: Sequence[Example], numbers: Collection[int], vocabulary: int
) -> list[Example]:
    """Return examples without virtual tokens that stand in them, the others numbered anew."""
    kept: dict[int, int] = {}
    for example in examples:
        for token in example.ids:
            if token >= vocabulary:
                lower = sum(n < token - vocabulary for n in numbers)
                kept[token] = -1 if token - vocabulary in numbers else token - lower
    made = []
    for example in examples:
        ids = [kept.get(token, token) for token in example.ids]
        before = sum(token == -1 for token in ids[: example.slot])
        left = tuple(token for token in ids if token != -1)
        made.append(replace(example, ids=left, slot=example.slot - before))
    return made


def without_positions(injection: Injection, numbers: Collection[int]) -> Injection:
    """Return the injection without some positions of its keys and values, in every layer.

    The others stay where they were, and so do the rows: their positions count on from the same.
    """
    kv = {}
    for site, own in injection.kv.items():
        kept = [n for n in range(own.keys.shape[1]) if n not in numbers]
        kv[site] = KV(own.keys[:, kept], own.values[:, kept])
    return replace(injection, kv=kv, bos=injection.bos - sum(n < injection.bos for n in numbers))


def without_sites(injection: Injection, sites: Collection[str]) -> Injection:
    """Return the injection without the keys and values of some attention modules."""
    return replace(injection, kv={s: kv for s, kv in injection.kv.items() if s not in sites})


def keys_only(injection: Injection) -> Injection:
    """Return the injection with values of zero: it takes attention, and gives nothing for it."""
    return replace(
        injection, kv={s: KV(v.keys, torch.zeros_like(v.values)) for s, v in injection.kv.items()}
    )


def values_only(injection: Injection) -> Injection:
    """Return the injection with the mean of each head's keys in the place of all of them.

    Its positions then have equal shares of the attention, whatever is asked.
    """

    def even(keys: Tensor) -> Tensor:
        return keys.mean(1, keepdim=True).expand_as(keys)

    return replace(injection, kv={s: KV(even(v.keys), v.values) for s, v in injection.kv.items()})


def name_of_site(backbone: Backbone, site: str) -> str:
    """Return what people call an attention module: the layer, and of two stacks which it is of."""
    found = backbone.sites[site]
    stack = {"self": "decoder", "encoder": "encoder", "cross": "cross"}[found.role]
    return f"{stack if backbone.has_two_stacks else 'layer'} {found.layer}"


def runs(count: int, most: int) -> list[range]:
    """Part numbers into at most ``most`` runs of neighbours, as equal as can be.

    >>> runs(5, 3)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    size = max(1, -(-count // most))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def placed(
    backbone: Backbone, examples: Sequence[Example], injection: Injection
) -> tuple[list[Example], Injection]:
    """Write leading virtual tokens into the rows themselves, which reads the same.

    The examples stand behind the injection already.
    """
    lead = range(backbone.vocabulary, backbone.vocabulary + injection.leading)
    rows = [replace(e, ids=(*lead, *e.ids), slot=e.slot + len(lead)) for e in examples]
    return rows, replace(injection, leading=0, bos=0)
