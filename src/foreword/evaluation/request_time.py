"""The time of a request: rows that are answered one at a time, in several ways in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from foreword.data.row import Row
from foreword.tasks.base import Bound

REQUESTS, REQUESTS_OF_TEXTS = 10, 3
"""Rows that are answered one at a time, to measure the time of a request."""


def rows_to_time(bound: Bound, rows: Sequence[Row]) -> list[Row]:
    """Return the first rows, fewer where answers are texts, which take longer."""
    return list(rows[: REQUESTS_OF_TEXTS if bound.answer == "text" else REQUESTS])


def time_in_turn(
    calls: Sequence[Callable[[Row], object]], rows: Sequence[Row], progress: Callable[[int], None]
) -> list[float]:
    """Return the median time of each call, in milliseconds; each is made on each row in turn."""
    for call in calls:
        call(rows[0])  # what is made once, is made now
    times: list[list[float]] = [[] for _ in calls]
    for row in rows:
        for call, own in zip(calls, times, strict=True):
            began = time.perf_counter()
            call(row)
            own.append(1000 * (time.perf_counter() - began))
            progress(1)
    return [statistics.median(own) for own in times]
