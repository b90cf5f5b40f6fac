"""The terminal as a reporter: lines, and live bars on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from foreword.reporter import Reporter


def console() -> Console:
    """Return the console for everything that is not a result: standard error."""
    return Console(stderr=True, highlight=False, emoji=False)


class Terminal(Reporter):
    """Shows lines, counts of rows and a run's progress on standard error.

    Where that is no terminal, there are no bars, and a run prints a line for each dev score.
    ``doing`` and ``unit`` name what a run does, and what its rows are.
    """

    def __init__(self, doing: str = "tuning", unit: str = "rows") -> None:
        self.doing, self.unit = doing, unit
        self.console = console()
        self.live: Progress | None = None
        self.task = TaskID(0)
        self.loss, self.dev, self.rows = "", "", 0.0
        self.began = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line, never broken: it may hold a path."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar that goes away when it is done."""
        live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with live:
            task = live.add_task(name, total=total)
            yield lambda rows: live.advance(task, rows)

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Show the bar of a run."""
        self.loss, self.dev, self.rows = "", "", 0.0
        self.began = time.monotonic()
        if not self.console.is_terminal:
            return
        self.live = Progress(
            TextColumn(self.doing),
            BarColumn(bar_width=18),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.live.start()
        self.task = self.live.add_task("", total=steps, completed=done, note="")

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self.loss = f"loss {values['loss']:.3f}"
        self.rows += values["rows"]
        self._show(number)

    def score(self, number: int, metric: str, value: float) -> None:
        """Show a dev score."""
        self.dev = f"dev {value:.2f}"
        if self.live is None:
            self.console.print(
                f"step {number}: {self.loss} {metric} on dev {value:.2f}".replace("  ", " ")
            )
        self._show(number)

    def _show(self, number: int) -> None:
        if self.live is not None:
            speed = self.rows / max(1e-9, time.monotonic() - self.began)
            note = f"{self.loss} {self.dev} {speed:.1f} {self.unit}/s"
            self.live.update(self.task, completed=number, note=note)

    def done(self) -> None:
        """Leave the bar as it stands."""
        if self.live is not None:
            self.live.stop()
            self.live = None
