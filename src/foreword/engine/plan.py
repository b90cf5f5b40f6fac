"""The plan of a run's passes: how large they are, so that it stays within a budget of memory.

The gradients of passes add up to that of the step. So smaller passes, scores of fewer targets at a
time, and layers that recompute their activations change what a run holds, and not what it learns.
They are taken in this order, by what they cost in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.projections import is_linear, linear_sizes
from foreword.engine.footprint import COMPILER, Footprint, footprint, resident_bytes
from foreword.engine.groups import token_budget
from foreword.engine.passes import score_limit
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.machine import room_of, shown

FEWEST = 8
"""Targets whose scores stand in memory at once, at the least: for fewer a product is slow."""

LOOSE = 1.0
"""What the C library keeps for later, in tensors of a pass: up to 0.7 was measured, much more where
layers are recomputed."""

SAFE = 0.9
"""The share of the memory that is free which a run is advised to take."""


@dataclass(frozen=True)
class PassPlan:
    """How the passes of a run are made.

    A pass has at most ``tokens``, and ``scores`` scores of targets stand in memory at once. With
    ``recompute`` layers recompute their activations; ``compiles`` says whether they may be
    compiled. Up to ``cached`` bytes of lower layers' states are kept in memory. ``peak`` is the
    most bytes that the run holds by this plan, None where nothing was counted; with ``tight`` that
    holds only where memory that is freed goes back to the system at once.
    """

    tokens: int
    scores: int
    recompute: bool = False
    compiles: bool = True
    cached: float = 0.0
    peak: float | None = None
    tight: bool = False


@dataclass(frozen=True)
class Load:
    """What a run asks of its passes: the tokens of its longest row and of what stands before rows,
    those of its batches and their targets, how many numbers it trains, and bytes of lower layers'
    states to keep.

    ``whole`` says that rows of a pass are compared or mixed, so that passes must stay as they are,
    and ``pieces`` of how many pieces of the vocabulary the rows are made.
    """

    longest: int
    before: int
    batch: int
    targets: int
    trained: int
    cached: float
    whole: bool = False
    pieces: int = 0


def usual_plan(backbone: Backbone) -> PassPlan:
    """Return how passes are made where memory is no matter."""
    return PassPlan(token_budget(backbone), score_limit(backbone))


def within(
    backbone: Backbone,
    outline: Injection | Mixture,
    load: Load,
    plan: PassPlan,
    budget: int,
    compiling: bool,
) -> PassPlan:
    """Return the fastest plan whose run stays within a budget of bytes.

    ``plan`` has the largest passes that are wanted, and may ask for layers to be recomputed;
    ``compiling`` says that this run is long enough to compile its layers.

    Raises UserError where none does, which says what the run takes at the least.
    """
    least = None
    for recompute, compiles in _ways(plan, compiling):
        try:
            held = footprint(
                backbone, outline, load.trained, recompute=recompute, pieces=load.pieces
            )
        except UserError:  # a model that cannot recompute its layers
            if plan.recompute:
                raise
            continue
        if compiles and compiling:
            held = replace(held, resident=held.resident + COMPILER)
        made = _largest(backbone, held, load, plan, budget)
        made = replace(made, recompute=recompute, compiles=compiles)
        assert made.peak is not None
        if made.peak <= budget:
            loose = made.peak + LOOSE * (made.peak - held.resident)
            return replace(made, tight=recompute or loose > budget)
        least = made.peak if least is None else min(least, made.peak)
    assert least is not None
    model = resident_bytes(backbone, load.trained, load.pieces)
    raise UserError(
        f"`memory` is {shown(budget)}, and this run takes {shown(least)} at the least, "
        f"{shown(model)} of it for the model and the libraries; "
        f"{_help(backbone, load, model < budget)}"
    )


def check_room(
    backbone: Backbone, outline: Injection | Mixture, load: Load, plan: PassPlan
) -> None:
    """Raise UserError for a run that plainly does not fit into this machine's memory.

    Passes are tried out only where a rough look at the layers' sizes says that they may not fit.
    """
    room = room_of(backbone.device)
    tokens = min(plan.tokens, load.batch) + load.before
    resident = resident_bytes(backbone, load.trained, load.pieces)
    if room is None or resident + tokens * _most_of_a_token(backbone) <= room:
        return
    held = footprint(backbone, outline, load.trained, recompute=plan.recompute, pieces=load.pieces)
    peak = held.peak(tokens, load.longest, 0)
    if peak <= room:
        return
    try:
        within(backbone, outline, load, plan, int(SAFE * room), compiling=False)
        how = f"`memory={SAFE * room / 1e9:.1f}GB` keeps it within that, and it learns the same"
    except UserError:
        how = _help(backbone, load, held.resident < room)
    raise UserError(f"this run takes {shown(peak)}, and {shown(room)} are free; {how}")


def _ways(plan: PassPlan, compiling: bool) -> Iterator[tuple[bool, bool]]:
    """Yield whether to recompute, and whether to compile, the fastest first."""
    if not plan.recompute:
        if compiling:
            yield False, True
        yield False, False
    yield True, False


def _largest(
    backbone: Backbone, held: Footprint, load: Load, plan: PassPlan, budget: int
) -> PassPlan:
    """Return the plan with the largest passes within a budget, or with the smallest there are."""
    usual = max(1, min(load.targets, plan.scores // backbone.vocabulary))
    few = usual if load.whole else min(usual, FEWEST)
    smallest = load.longest if not load.whole else min(plan.tokens, load.batch)
    smallest = max(smallest, 1)
    floor = held.peak(smallest + load.before, load.longest, few)
    cached = min(load.cached, max(0.0, (budget - floor) / 2))
    rest = budget - cached - held.resident
    most = held.most.tokens(rest, load.longest)
    loss = held.kept.tokens(rest - few * held.target, load.longest)
    tokens = max(smallest, min(plan.tokens, most - load.before, loss - load.before))
    size = min(tokens, max(load.batch, smallest)) + load.before
    left = rest - held.kept.of(size, load.longest)
    targets = usual if load.whole else max(few, min(usual, int(left / max(1.0, held.target))))
    peak = held.peak(size, load.longest, targets) + cached
    scores = plan.scores if targets == usual else targets * backbone.vocabulary
    return replace(plan, tokens=tokens, scores=scores, cached=cached, peak=peak)


def _most_of_a_token(backbone: Backbone) -> float:
    """Return more bytes than a token leaves behind in all layers, by their sizes alone."""
    layers = [m for m in backbone.model.modules() if isinstance(m, nn.Module) and is_linear(m)]
    numbers = sum(sum(linear_sizes(m)) for m in layers if linear_sizes(m)[1] < backbone.vocabulary)
    return 4.0 * numbers * backbone.dtype.itemsize


def _help(backbone: Backbone, load: Load, shorter: bool) -> str:
    """Say what makes a run smaller; ``shorter`` rows do so where the model itself fits."""
    ways = []
    if shorter:
        ways.append(f"shorter rows (`max_length`; the longest has {load.longest} tokens)")
    if backbone.dtype.itemsize > 2:
        ways.append("`dtype=bfloat16`, which halves the model")
    return f"give {', or '.join([*ways, 'a smaller model'])}"
