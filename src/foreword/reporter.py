"""Reporter: hears how a long call goes. The terminal, a log file and trackers are reporters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any


class Reporter:
    """Hears lines for people, counts of rows, and a training run's steps and dev scores.

    Every method does nothing here; a reporter overrides those it wants. A run calls ``start``
    once, ``step`` and ``score`` as they come, and ``done`` at its end, also after an error.
    """

    def line(self, text: str) -> None:
        """Hear a line that a person should read."""

    def bar(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Count ``total`` rows; the function that is entered is told how many more are done."""
        return _uncounted()

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Hear what goes on now, in place of what was heard before; without rows it is over."""

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Hear what is run, in how many steps, and how many of them are done already."""

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Hear of a step: its number from 1, ``loss``, ``rate``, ``norm`` and ``rows``."""

    def score(self, number: int, metric: str, value: float) -> None:
        """Hear of a dev score after a step; 0 is before the first."""

    def done(self) -> None:
        """Finish, whatever happened."""


@contextmanager
def _uncounted() -> Iterator[Callable[[int], None]]:
    yield lambda rows: None


SILENT = Reporter()
"""Reports nothing."""


class Reporters(Reporter):
    """Several reporters as one; all of them hear the end, even if one of them raises."""

    def __init__(self, members: Sequence[Reporter]) -> None:
        self.members = tuple(members)

    def line(self, text: str) -> None:  # noqa: D102
        for member in self.members:
            member.line(text)

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: D102
        with ExitStack() as stack:
            moves = [stack.enter_context(member.bar(name, total)) for member in self.members]

            def move(rows: int) -> None:
                for each in moves:
                    each(rows)

            yield move

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:  # noqa: D102
        for member in self.members:
            member.table(header, rows)

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:  # noqa: D102
        for member in self.members:
            member.start(config, steps, done)

    def step(self, number: int, values: Mapping[str, float]) -> None:  # noqa: D102
        for member in self.members:
            member.step(number, values)

    def score(self, number: int, metric: str, value: float) -> None:  # noqa: D102
        for member in self.members:
            member.score(number, metric, value)

    def done(self) -> None:  # noqa: D102
        with ExitStack() as stack:
            for member in reversed(self.members):
                stack.callback(member.done)


class Prefixed(Reporter):
    """Another reporter's lines, each after a name."""

    def __init__(self, name: str, report: Reporter) -> None:
        self.name, self.report = name, report

    def line(self, text: str) -> None:  # noqa: D102
        self.report.line(f"{self.name}: {text}")


class Count:
    """How much of something is done, and since when."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.done, self.first = name, total, done, done
        self.began = time.monotonic()

    def left(self, before: str = "") -> str:
        """Return the time left at the pace so far, after ``before``; empty where none is known."""
        moved = self.done - self.first
        if moved <= 0 or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self.began) / moved * (self.total - self.done)
        return f"{before}{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Write a time for people, with the precision that an estimate has.

    >>> duration(8), duration(95), duration(4000)
    ('8 s', '95 s', '67 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
