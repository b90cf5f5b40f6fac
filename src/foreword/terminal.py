"""The terminal as a reporter: lines, and live bars with the time left on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from foreword.notebook import Notebook, in_notebook
from foreword.reporter import Count, Reporter

if TYPE_CHECKING:
    from rich.progress import TaskID

    from foreword.bars import Bars

SILENCE = 2.0
"""Seconds without a word, after which a line says how far something is; no terminal shows bars."""

APART = (10.0, 60.0)
"""Seconds between the first such lines, doubled from line to line, and the most."""


def console() -> Console:
    """Return the console for everything that is not a result: standard error."""
    return Console(stderr=True, highlight=False, emoji=False)


def usual_reporter() -> Reporter:
    """Return the reporter that people see: the notebook in a notebook, else the terminal."""
    return Notebook() if in_notebook() else Terminal()


class Terminal(Reporter):
    """Shows lines, counts of rows and a run's progress on standard error, with the time left.

    Where that is no terminal, there are no bars: a run prints a line for each dev score, and what
    takes longer than ``SILENCE`` a line now and then. ``doing`` and ``unit`` name what a run does,
    and what its rows are.
    """

    def __init__(self, doing: str = "tuning", unit: str = "rows") -> None:
        self.doing, self.unit = doing, unit
        self.console = console()
        self.live: Bars | None = None
        self.run: _Count | None = None
        self.loss, self.dev, self.rows = "", "", 0.0

    def line(self, text: str) -> None:
        """Print a line, never broken: it may hold a path."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar that goes away when it is done; without a total it only moves."""
        count = _Count(name, total)
        self._add(count)

        def move(rows: int) -> None:
            count.done += rows
            self._show(count)
            if self.live is None and count.done < total and count.is_due():
                self.line(f"{name}: {count.done} of {total}{count.left(', ')}")

        try:
            yield move
        finally:
            self._remove(count)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table above the bars, while there are some."""
        if self.live is not None:
            self.live.show_above(header, rows)

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Show the bar of a run."""
        self.loss, self.dev, self.rows = "", "", 0.0
        self.run = _Count(self.doing, steps, done)
        self._add(self.run)

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self.loss = f"loss {values['loss']:.3f}"
        self.rows += values["rows"]
        self._move(number)
        if self.run is not None and self.live is None and self.run.is_due():
            self._say(number)

    def score(self, number: int, metric: str, value: float) -> None:
        """Show a dev score."""
        self.dev = f"dev {value:.2f}"
        self._move(number)
        if self.live is None:
            self._say(number, f" {metric} on dev {value:.2f}")

    def done(self) -> None:
        """Leave the bar as it stands."""
        if self.run is not None:
            self._remove(self.run, keep=True)
            self.run = None

    def _move(self, number: int) -> None:
        if self.run is not None:
            self.run.done = number
            speed = self.rows / max(1e-9, time.monotonic() - self.run.began)
            self._show(self.run, f"{self.loss} {self.dev} {speed:.1f} {self.unit}/s")

    def _say(self, number: int, score: str = "") -> None:
        steps = "" if self.run is None else f" of {self.run.total}"
        left = "" if self.run is None else self.run.left("; ")
        self.line(f"step {number}{steps}: {self.loss}{score}{left}".replace("  ", " "))
        if self.run is not None:
            self.run.said = time.monotonic()

    # Live bars -------------------------------------------------------------------------------

    def _add(self, count: _Count) -> None:
        """Show one more bar, below those that are there."""
        if not self.console.is_terminal:
            return
        if self.live is None:
            self.live = _bars(self.console)
            self.live.start()
        total = count.total or None
        count.task = self.live.add_task(
            count.name, total=total, completed=count.done, note="", left=""
        )

    def _show(self, count: _Count, note: str = "") -> None:
        if self.live is not None and count.task is not None:
            self.live.update(count.task, completed=count.done, note=note, left=count.left())

    def _remove(self, count: _Count, keep: bool = False) -> None:
        """Take a bar away, or ``keep`` what it shows as a line."""
        if self.live is None or count.task is None:
            return
        last = next(task for task in self.live.tasks if task.id == count.task)
        self.live.remove_task(count.task)
        count.task = None
        if keep:
            self.live.console.print(self.live.make_tasks_table([last]))
        if not self.live.tasks:
            self.live.stop()
            self.live = None


def _bars(on: Console) -> Bars:
    from rich.progress import (  # help and short commands show no bars
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    from foreword.bars import Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=18),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=on,
        transient=True,
    )


class _Count(Count):
    """How much of something is done, when it was last said, and its bar where there is one."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        super().__init__(name, total, done)
        self.said = self.began
        self.wait = SILENCE
        self.task: TaskID | None = None

    def is_due(self) -> bool:
        """Whether nothing was said for so long that a line should say how far this is."""
        now = time.monotonic()
        if now - self.said < self.wait:
            return False
        self.said, self.wait = now, min(max(2 * self.wait, APART[0]), APART[1])
        return True
