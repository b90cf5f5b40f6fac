"""Importance by ablation: what the prompt scores without each of its pieces.

- A virtual token is left out of the embeddings, and what follows moves up; a position of keys and
  values out of every layer, and all else stays at its position. Of many, a few neighbours go
  together.
- A layer's prefix is left out of that attention module alone. Leading virtual tokens have one too:
  the keys and values that the model makes of them in each layer.
- With keys only, values are zero: the prompt takes attention and gives nothing for it. With values
  only, each key is the mean of its head's keys: positions have equal shares of the attention,
  whatever is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from foreword.engine.climb import climb
from foreword.explanation.explanation import Importance, Measured
from foreword.explanation.judge import Judge, Progress
from foreword.explanation.pieces import (
    NO_TOKENS,
    keys_only,
    name_of_site,
    positions_of,
    runs,
    values_only,
    virtual_of,
    without_positions,
    without_sites,
    without_tokens,
    without_virtual,
)
from foreword.injection import Injection
from foreword.reporter import Reporter

MOST = 32
"""The most ablations of virtual tokens, and of positions; neighbours go together beyond it."""


def importance(
    judge: Judge, bare: Judge, report: Reporter, most: int = MOST
) -> tuple[Importance | None, dict[str, str]]:
    """Measure the prompt of ``judge`` without each of its pieces.

    ``bare`` judges the untouched model. Returns it, and what is left out of it with the reason.
    """
    injection, left_out = judge.injection, dict[str, str]()
    tokens, positions = virtual_of(injection), positions_of(injection)
    if not tokens and not injection.kv:
        return None, {"importance": NO_TOKENS}
    if injection.kv and not positions:
        left_out["importance: positions"] = "its layers have different numbers of positions"
    folded = as_keys_and_values(judge)
    if isinstance(folded, str):
        left_out["importance: layers"] = left_out["importance: sides"] = folded
    sites = [] if isinstance(folded, str) else [s for s in judge.backbone.sites if s in folded.kv]
    count = 2 + len(runs(tokens, most)) + len(runs(positions, most))
    count += len(sites) + 2 * bool(sites)
    with report.bar("importance", count * len(judge.items)) as progress:
        whole = judge.measure("prompt", progress=progress)
        untouched = bare.measure("untouched", progress=progress)
        pieces = [
            *_tokens(judge, tokens, most, progress),
            *_positions(judge, positions, most, progress),
        ]
        layers: list[Measured] = []
        sides: list[Measured] = []
        if not isinstance(folded, str):
            layers = list(without_each_layer(judge, folded, sites, progress))
            for name, part in (("keys only", keys_only), ("values only", values_only)):
                sides.append(judge.measure(name, part(folded), progress=progress))
    found = Importance(
        metric=judge.bound.metric,
        rows=len(judge.items),
        prompt=whole,
        untouched=untouched,
        tokens=tuple(pieces),
        layers=tuple(layers),
        sides=tuple(sides),
    )
    return found, left_out


def as_keys_and_values(judge: Judge) -> Injection | str:
    """Return the prompt as keys and values alone, or why it cannot be."""
    injection = judge.injection
    if virtual_of(injection) > injection.leading:
        return "virtual tokens inside a template have no keys and values before the row"
    if not injection.leading:
        return injection
    view = judge.backbone.with_changes(injection)
    folded = view.prefill(injection, (), judge.longest)
    if folded is None:
        if judge.backbone.is_causal:
            return "the model cannot go on from stored keys and values"
        kind = judge.backbone.architecture
        return f"virtual tokens see the row ({kind} model), and have no keys and values alone"
    return replace(folded, embeds=None)


def _named(kind: str, run: range) -> str:
    one = f"{kind} {run[0]}"
    return one if len(run) == 1 else f"{kind}s {run[0]}-{run[-1]}"


def _tokens(judge: Judge, count: int, most: int, progress: Progress) -> Iterator[Measured]:
    for run in runs(count, most):
        examples = without_virtual(judge.examples, run, judge.backbone.vocabulary)
        left = without_tokens(judge.injection, run)
        yield judge.measure(_named("token", run), left, examples, progress=progress)


def _positions(judge: Judge, count: int, most: int, progress: Progress) -> Iterator[Measured]:
    for run in runs(count, most):
        left = without_positions(judge.injection, run)
        yield judge.measure(_named("position", run), left, progress=progress)


def without_each_layer(
    judge: Judge, injection: Injection, sites: Sequence[str], progress: Progress
) -> Iterator[Measured]:
    """Measure an injection without the keys and values of each layer, in the order of the layers.

    Below the layer nothing changes; where layers can be run apart, the states that enter it are
    those of the whole prompt.
    """
    backbone = judge.backbone
    apart = (
        not injection.leading
        and backbone.can_skip_lower_layers(judge.longest)
        and not (injection.patches or injection.weights)
        and backbone.stack is not None
        and all(site in backbone.stack.sites for site in sites)
    )
    if not apart:
        for site in sites:
            left = without_sites(injection, [site])
            yield judge.measure(name_of_site(backbone, site), left, progress=progress)
        return
    assert backbone.stack is not None
    lowest = backbone.stack.sites[0]
    if lowest in sites:
        left = without_sites(injection, [lowest])
        yield judge.measure(name_of_site(backbone, lowest), left, progress=progress)
    entering = climb(backbone, replace(injection, head=None), judge.examples)
    above = zip(backbone.stack.sites[1:], entering, strict=False)
    for site, given in above:
        if site in sites:
            left = without_sites(injection, [site])
            name = name_of_site(backbone, site)
            yield judge.measure(name, left, given=given, progress=progress)
