"""What hears a trial: it passes on scores, and ends the trial with the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from foreword.reporter import Reporter
from foreword.training.interrupt import Enough

PROBE = 4
"""Steps after which the time of a run is foreseen; the first one is not counted."""

TOO_LONG = 1.5
"""At how many times the seconds that it may take a run is too long to be begun."""


Clock = Callable[[], float]
"""What counts the seconds of a search."""


class TooLong(Exception):  # noqa: N818 (it is no error)
    """A run that the time is far too short for; ``share`` is how much of it there is time for."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.share = share


class Judged(Reporter):
    """Hears a run: its dev scores go to the study, which may prune it; time ends it.

    ``over`` says that the time was up before the run was. A run raises TooLong after its first
    steps if the seconds that are left of it are far more than ``most`` of them says it may take.
    ``resumed`` says that its beginning was run before.
    """

    def __init__(
        self,
        hear: Callable[[int, float], None],
        deadline: float,
        passed: Callable[[], None],
        *,
        most: Callable[[float], float] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.hear, self.deadline, self.passed, self.clock = hear, deadline, passed, clock
        self.most = most
        self.steps, self.first, self.began, self.taken = 0, 1, 0.0, 0
        self.evaluations = 0
        self.marks: list[float] = []
        self.stepped = self.scored = 0.0
        self.over = False

    @property
    def resumed(self) -> bool:
        """Whether the run went on from a checkpoint."""
        return self.first > 1

    @property
    def share(self) -> float:
        """How much of the steps were taken, from 0 to 1."""
        return self.taken / max(1, self.steps)

    @property
    def epoch(self) -> float:
        """The mean seconds of an epoch and the scoring after it; 0 before any has ended."""
        epochs = len(self.marks) - 1
        return (self.marks[-1] - self.marks[0]) / epochs if epochs > 0 else 0.0

    @property
    def scoring(self) -> float:
        """The mean seconds of the scoring after an epoch, which ``epoch`` has in it."""
        return self.scored / max(1, len(self.marks) - 1)

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Move the time at every row."""

        def move(rows: int) -> None:
            self._look()

        yield move

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Note how many steps there are, and where a run goes on that was stopped."""
        self.steps, self.first = steps, done + 1
        if done:
            self.evaluations = 1 + done * int(config["method"]["training"]["epochs"]) // steps

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Look at the time."""
        self.taken = number
        self._look()
        now = self.stepped = self.clock()
        if number == self.first:
            self.began = now
        if self.most is not None and number == self.first + PROBE - 1:
            needed = (now - self.began) / (PROBE - 1) * (self.steps - number)
            most = max(0.0, self.most(needed))
            if needed > TOO_LONG * most:
                raise TooLong(most / needed)

    def score(self, number: int, metric: str, value: float) -> None:
        """Pass on the scores after each epoch; the one before the first says nothing yet."""
        if not metric.endswith("of all rows"):
            if self.evaluations and not self.over:
                self.hear(self.evaluations, value)
            self.evaluations += 1
            now = self.clock()
            if self.marks:
                self.scored += now - self.stepped
            self.marks.append(now)

    def _look(self) -> None:
        self.passed()
        if not self.over and self.clock() > self.deadline:
            self.over = True  # what is left is to score what was learned
            raise Enough
