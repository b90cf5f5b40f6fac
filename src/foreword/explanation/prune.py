"""Pruning: a prompt without the virtual tokens, positions and layers that its score can spare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from foreword.data.rows import Rows
from foreword.errors import UserError, nearest
from foreword.evaluation.request_time import rows_to_time, time_in_turn
from foreword.explanation.ablation import without_each_layer
from foreword.explanation.explain import check_one_prompt, rows_to_explain
from foreword.explanation.explanation import Measured
from foreword.explanation.judge import Judge
from foreword.explanation.pieces import (
    name_of_site,
    positions_of,
    runs,
    virtual_of,
    without_positions,
    without_sites,
    without_tokens,
)
from foreword.html import html_table
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.prompt.storage import Store, pack
from foreword.prompt.tensors import as_stored
from foreword.reporter import Reporter
from foreword.terminal import usual_reporter

MOST = 48
"""The most runs of virtual tokens, or positions, that go together."""

ROUNDING = 1e-4
"""By how much a mean loss may rise and count as the same, in nats."""

Droppable = Literal["tokens", "layers"]
DROPPABLE: tuple[Droppable, ...] = ("tokens", "layers")


@dataclass(frozen=True)
class Size:
    """What a prompt scores and takes: ``bytes`` of its tensors, milliseconds a request."""

    score: float
    loss: float
    tokens: int
    layers: int
    bytes: int
    milliseconds: float


@dataclass(frozen=True, eq=False, repr=False)
class Pruned:
    """A pruned ``prompt``, and what it was ``before`` and is ``after``, on ``rows`` rows.

    The pieces were ranked on other rows than these.

    ``tokens`` are the virtual tokens or positions that are gone, ``layers`` the attention modules
    whose keys and values are, ``left_out`` what could not be dropped with the reason. ``store`` is
    how the file is to keep its numbers; the score after is of these.
    """

    prompt: Prompt
    metric: str
    rows: int
    before: Size
    after: Size
    tokens: tuple[int, ...]
    layers: tuple[str, ...]
    store: Store
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the prompt."""
        return {
            "metric": self.metric,
            "rows": self.rows,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "dropped": {"tokens": list(self.tokens), "layers": list(self.layers)},
            "store": self.store,
            "left_out": dict(self.left_out),
        }

    def _repr_html_(self) -> str:
        """Show what it was and is, in a notebook."""
        pairs = zip(asdict(self.before).items(), asdict(self.after).values(), strict=True)
        return html_table(("", "before", "after"), [(n, f"{a:g}", f"{b:g}") for (n, a), b in pairs])


def prune(
    prompt: Prompt,
    data: Rows,
    *,
    tolerance: float = 1.0,
    drop: Sequence[Droppable] = DROPPABLE,
    store: Store = "float32",
    rows: int = 256,
    seed: int = 0,
    report: Reporter | None = None,
) -> Pruned:
    """Drop what the score on rows can spare: virtual tokens or positions, and layers' prefixes.

    Each piece is left out alone on one half of the rows, and they are put in the order of the loss
    without them. Of the least important as many go as leave the dev score of the other half within
    ``tolerance`` of what it was, in its own unit (points of accuracy), and its rows' losses no
    higher than by chance (:func:`rises`); how many is found by halving. At least one token and one
    layer stay. Of ``data`` the first ``rows`` after shuffling with the seed are used; few let too
    much go. The rows' own positions stay.

    With ``store`` "float16" or "int8" the score is that of the numbers as such a file keeps them:
    ``pruned.prompt.save(path, store=pruned.store)``.

    Raises UserError for rows that cannot be used, for settings out of range, for an ensemble, and
    for a prompt that has neither virtual tokens nor keys and values.
    """
    report = usual_reporter() if report is None else report
    if not tolerance >= 0:
        raise UserError(f"`tolerance={tolerance:g}`: give 0 or more")
    for each in drop:
        if each not in DROPPABLE:
            raise UserError(f"`drop={each}`: no such pieces; {nearest(each, DROPPABLE)}")
    check_one_prompt(prompt)
    as_stored(Injection(), store)  # an unknown one is refused first
    chosen = rows_to_explain(prompt, data, rows, seed, report)
    bound, whole = prompt.bound, prompt.injection
    if drop and not virtual_of(whole) and not whole.kv:
        raise UserError(
            f"{prompt.where}: has no virtual tokens and no keys and values, of which some could "
            "go; give a soft prompt or a prefix"
        )
    if len(chosen) < 2:
        raise UserError("one row is too few to prune by: give two or more")
    judge = Judge.of(bound, chosen[::2], whole)
    ranking = Judge.of(bound, chosen[1::2], whole)
    tokens, left_out = _droppable_tokens(judge, whole) if "tokens" in drop else ([], {})
    sites = [site for site in judge.backbone.sites if site in whole.kv] if "layers" in drop else []
    if "layers" in drop and not whole.kv:
        left_out["layers"] = "virtual tokens are read by all layers alike"
    units = [*runs_of(tokens)]
    left = judge.injection
    count = (len(units) + len(sites)) * len(ranking.items) + 2 * len(judge.items)
    with report.bar("pruning", count) as progress:
        before, losses = judge.measure_rows("before", progress=progress)

        def holds(injection: Injection) -> bool:
            found, own = judge.measure_rows("", injection)
            return found.score >= before.score - tolerance and not rises(losses, own)

        alone = [ranking.measure("", _without_tokens(left, [u]), progress=progress) for u in units]
        gone = _spare(units, alone, lambda some: holds(_without_tokens(left, some)))
        dropped = sorted(n for run in gone for n in run)
        left = _without_tokens(left, gone)
        alone = list(without_each_layer(ranking, left, sites, progress))
        spared = _spare(sites, alone, lambda some: holds(without_sites(left, some)))
        left = as_stored(without_sites(left, spared), store)
        after = judge.measure("after", left, progress=progress)
    kept = as_stored(without_sites(_without_tokens(whole, gone), spared), store)
    names = tuple(name_of_site(judge.backbone, site) for site in spared)
    made = replace(
        prompt,
        injection=kept,
        method={**prompt.method, "pruned": {"tokens": dropped, "layers": list(names)}},
        scores={"dev": {bound.metric: after.score, "rows": len(judge.items)}},
    )
    few = rows_to_time(bound, chosen)
    with report.bar("time of a request", 2 * len(few)) as progress:
        calls = [lambda row, own=own: bound.predict([row], own) for own in (whole, kept)]
        slow, fast = time_in_turn(calls, few, progress)
    return Pruned(
        prompt=made,
        metric=bound.metric,
        rows=len(judge.items),
        before=_size(before, whole, "float32", slow),
        after=_size(after, kept, store, fast),
        tokens=tuple(dropped),
        layers=names,
        store=store,
        left_out=left_out,
    )


def _droppable_tokens(judge: Judge, injection: Injection) -> tuple[list[int], dict[str, str]]:
    """Return the virtual tokens or positions that may go, by number; those of ``bos`` may not."""
    virtual, positions = virtual_of(injection), positions_of(injection)
    if virtual > injection.leading:
        return [], {"tokens": "virtual tokens inside a template are placed by it"}
    if virtual and positions:
        return [], {"tokens": "the prompt has virtual tokens beside keys and values"}
    if not virtual and not positions:
        return [], {"tokens": "its layers have different numbers of positions"}
    return list(range(injection.bos, virtual or positions)), {}


def runs_of(numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """Return numbers one by one, and where there are many in runs of neighbours."""
    return [tuple(numbers[place] for place in run) for run in runs(len(numbers), MOST)]


def _without_tokens(injection: Injection, gone: Sequence[Sequence[int]]) -> Injection:
    numbers = {number for run in gone for number in run}
    if not numbers:
        return injection
    if injection.embeds is not None:
        return without_tokens(injection, numbers)
    return without_positions(injection, numbers)


def rises(before: Sequence[float], after: Sequence[float]) -> bool:
    """Tell whether the losses of the same rows rise by more than chance.

    That is by more than one standard error of the mean of the rows' changes.
    """
    changes = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
    error = changes.std() / len(changes) ** 0.5 if len(changes) > 1 else 0.0
    return float(changes.mean()) > float(error) + ROUNDING


def _spare(
    pieces: Sequence[Any], alone: Sequence[Measured], holds: Callable[[Sequence[Any]], bool]
) -> list[Any]:
    """Return pieces without which the prompt ``holds``, in their order.

    They are those without which, ``alone``, the loss is lowest.
    """
    order = sorted(range(len(pieces)), key=lambda place: alone[place].loss)
    first: list[Any] = []
    few, many = 0, max(len(pieces) - 1, 0)
    while few < many:
        half = (few + many + 1) // 2
        tried = [pieces[place] for place in sorted(order[:half])]
        if holds(tried):
            few, first = half, tried
        else:
            many = half - 1
    return first


def _size(measured: Measured, injection: Injection, store: Store, milliseconds: float) -> Size:
    held = pack(dict(injection.tensors()), store).values()
    return Size(
        score=measured.score,
        loss=measured.loss,
        tokens=virtual_of(injection)
        or max((kv.keys.shape[1] for kv in injection.kv.values()), default=0),
        layers=len(injection.kv),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in held),
        milliseconds=milliseconds,
    )
