"""Epochs: how many rows of each task one has, and in which order they come."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence

from foreword.errors import UserError


def tempered(sizes: Sequence[int], temperature: float) -> list[int]:
    """Share an epoch of as many rows as there are out over tasks, by a temperature T.

    Task t has a share in proportion to ``n_t ** (1/T)``, n_t its number of rows, and at least one
    row: 1 is in proportion to the rows, and more is more even (Raffel et al. 2020,
    arXiv:1910.10683, section 3.5.2).

    Raises UserError for a temperature that is not above 0.

    >>> tempered([90, 10], 1.0), tempered([90, 10], 2.0)
    ([90, 10], [75, 25])
    """
    if not 0 < temperature < math.inf:
        raise UserError(f"`mixing={temperature:g}`: give a temperature above 0, such as 1")
    largest = max(sizes)
    weights = [(size / largest) ** (1 / temperature) for size in sizes]
    return [max(1, round(sum(sizes) * weight / sum(weights))) for weight in weights]


def epoch_order(
    tasks: Sequence[int], counts: Mapping[int, int], seed: int, epoch: int
) -> tuple[int, ...]:
    """Return an epoch's rows by their numbers, of which row n is of task ``tasks[n]``.

    Each task goes through its own rows in passes, each shuffled anew, and ``counts`` says how
    many of them it has an epoch; what an epoch leaves of a pass is for the next. The tasks stand
    evenly spread, so that every batch has its share of each. A function of its arguments alone:
    nothing need be kept to go on at any epoch.
    """
    found: list[tuple[float, int, int]] = []
    for task, count in counts.items():
        own = [number for number, owner in enumerate(tasks) if owner == task]
        drawn: list[int] = []
        first = epoch * count // len(own)
        for passed in range(first, ((epoch + 1) * count - 1) // len(own) + 1):
            order = own.copy()
            random.Random(f"{seed}/{passed}").shuffle(order)
            drawn += order
        skipped = epoch * count - first * len(own)
        chosen = itertools.islice(drawn, skipped, skipped + count)
        found += [((n + 0.5) / count, task, number) for n, number in enumerate(chosen)]
    found.sort(key=lambda place: place[:2])
    return tuple(number for _, _, number in found)
