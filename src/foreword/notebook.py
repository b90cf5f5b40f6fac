"""The output of a notebook's cell as a reporter: lines, and bars that move in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

from foreword.reporter import Count, Reporter

APART = 0.2
"""Seconds between two updates of a bar."""


def in_notebook() -> bool:
    """Whether this is a cell of a notebook, whose output shows HTML."""
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class Notebook(Reporter):
    """Shows lines, counts of rows and a run's progress below the cell that runs."""

    def __init__(self) -> None:
        self.run: _Bar | None = None
        self.loss, self.dev = "", ""
        self.free: list[Any] = []
        """Outputs of the cell that are empty again, for bars to come."""

    def line(self, text: str) -> None:
        """Print a line."""
        print(text)

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar that goes away when it is done."""
        bar = _Bar(name, total, place=self.free.pop() if self.free else None)

        def move(rows: int) -> None:
            bar.show(bar.done + rows)

        try:
            yield move
        finally:
            self.free.append(bar.clear())

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Show the bar of a run."""
        self.run, self.loss, self.dev = _Bar("tuning", steps, done), "", ""

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self.loss = f"loss {values['loss']:.3f}"
        self._show(number)

    def score(self, number: int, metric: str, value: float) -> None:
        """Show a dev score."""
        self.dev = f"{metric} on dev {value:.2f}"
        self._show(number)

    def done(self) -> None:
        """Leave the bar as it stands."""
        if self.run is not None:
            self.run.show(self.run.done, f"{self.loss} {self.dev}", now=True)
            self.run = None

    def _show(self, number: int) -> None:
        if self.run is not None:
            self.run.show(number, f"{self.loss} {self.dev}")


class _Bar(Count):
    """A bar in a notebook: a name, how much is done, a note and the time left."""

    def __init__(self, name: str, total: int, done: int = 0, place: Any = None) -> None:
        from IPython.display import display

        super().__init__(name, total, done)
        self.shown = -APART
        self.place = display(_Html(""), display_id=True) if place is None else place

    def show(self, done: int, note: str = "", now: bool = False) -> None:
        """Move the bar, not more often than people see."""
        self.done, at = done, time.monotonic()
        if not now and at - self.shown < APART and done < self.total:
            return
        self.shown = at
        said = escape(f"{done} of {self.total} {note} {self.left()}")
        bar = f'<progress value="{done}" max="{self.total}"></progress>'
        self.place.update(_Html(f"{escape(self.name)} {bar} {said}"))

    def clear(self) -> Any:
        """Take the bar away, and return the output of the cell that it was shown in."""
        self.place.update(_Html(""))
        return self.place


class _Html:
    """HTML that a notebook shows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return ""
