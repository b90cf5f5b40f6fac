"""The dev score of each task of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.engine.passes import infer
from foreword.methods.base import Trainable
from foreword.tasks.objective import Objective, Parted
from foreword.training.examples import Examples
from foreword.training.step import NotFiniteError
from foreword.training.world import World

STATES_AT_ONCE = 256
"""Dev rows whose stored states are brought together at once."""


def dev_scores(
    backbone: Backbone,
    objective: Objective,
    trainable: Trainable,
    examples: Examples,
    numbers: Sequence[int],
    world: World,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[float]:
    """Return the dev score of each task on the dev rows with these numbers.

    With several processes each runs a part of the rows. ``progress`` is told how many more are
    done.

    Raises NotFiniteError for a row whose scores are NaN.
    """
    rows = examples.dev_rows
    tasks = sorted({row.task for row in rows})
    sums: list[tuple[float, ...]] = [()] * len(tasks)
    broken: int | None = None
    shared = world.share([examples.dev[n].example.length for n in numbers])
    mine = [numbers[n] for n in shared]
    parted = Parted(examples.dev)
    for place, task in enumerate(tasks):
        chosen = [i for i in mine if rows[i].task == task]
        for group, logits in _logits(backbone, objective, trainable, examples, chosen):
            items = parted.of(group, logits)
            if bool(logits.isnan().any()):
                own = torch.split(logits, [len(item.example.targets) for item in items])
                broken = min(n for n, part in zip(group, own, strict=True) if part.isnan().any())
                break
            counts = objective.dev_counts(logits, items)
            sums[place] = tuple(map(sum, zip_longest(sums[place], counts, fillvalue=0.0)))
            progress(len(group))
    broken = world.least(broken)
    if broken is not None:
        raise NotFiniteError(f"score of {rows[broken].where}")
    return [
        objective.dev_score(world.summed(counts), task)
        for counts, task in zip(sums, tasks, strict=True)
    ]


def _logits(
    backbone: Backbone,
    objective: Objective,
    trainable: Trainable,
    examples: Examples,
    chosen: Sequence[int],
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield dev rows, by number, and the logits at their targets."""
    lower = examples.lower
    size = len(chosen) if lower is None else STATES_AT_ONCE
    for start in range(0, len(chosen), max(1, size)):
        part = chosen[start : start + size]
        encoded = [examples.dev[i].example for i in part]
        with torch.no_grad():
            injection = trainable.judged_on(part)
        found = infer(
            backbone,
            injection,
            encoded,
            examples.plan.tokens,
            tokens=objective.tokens,
            given=None if lower is None else lower.given(encoded),
            scores=examples.plan.scores,
            split=objective.sums_targets,
        )
        for group, logits in found:
            yield [part[i] for i in group], logits
