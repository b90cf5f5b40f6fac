"""The pace of a search: how long trials take, and what time is left for them."""

from __future__ import annotations

import math
import time

from foreword.prompt_search.judged import Clock

CUT = 0.5
"""The part of its last epoch that a last run may lack: by then its learning rate is low."""


class Pace:
    """How long runs take by method, and what is left until the ``deadline`` by a ``clock``.

    ``epochs`` are those that a run may have, the fewest first. Where the best settings are tuned
    once more at the end, ``again`` says how many times as long as in a trial an epoch then
    takes; time is left for the longest such run of the method that is ``best``.
    """

    def __init__(
        self,
        epochs: tuple[int, ...],
        deadline: float = math.inf,
        again: float = 0.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.epochs, self.deadline, self.again, self.clock = epochs, deadline, again, clock
        self.best = ""
        self.known: dict[str, tuple[float, float, float]] = {}

    def note(
        self, method: str, seconds: float, epochs: int, epoch: float, scoring: float = 0.0
    ) -> None:
        """Note the seconds of a trial, of which each epoch took so many; the shortest counts.

        ``scoring`` are those of an epoch that do not grow with the rows that are learned.
        """
        took = epoch, max(0.0, seconds - epochs * epoch), scoring
        self.known[method] = min(took, self.known.get(method, took))

    def seconds(self, method: str | None, epochs: float, times: float = 1.0) -> float:
        """Return about how long a trial takes, or one on so many ``times`` its rows.

        A method that was not run, and None, is taken for the fastest; it is 0 before any.
        """
        fastest = min(self.known.values(), default=(0.0, 0.0, 0.0))
        epoch, beside, scoring = self.known.get(method or "", fastest)
        return epochs * (times * (epoch - scoring) + scoring) + beside

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - self.clock()

    def left_for_trials(self) -> float:
        """Return the seconds that are left before the best settings are tuned once more.

        Below 0 there is no time any more for as long a run as there may be, and none for trials.
        """
        return self.left() - self._once_more(self.epochs[-1])

    def until(self) -> float:
        """Return when a trial that begins now must end; the first one may take all that is left."""
        return self.clock() + self.left_for_trials()

    def first(self) -> float:
        """Return the seconds that the first trial may take, so that the longest run fits after it.

        Where the best settings are not tuned once more it is all that is left.
        """
        return self.left() / (1 + self.again * self.epochs[-1] / self.epochs[0])

    def leaves_no_last(self, first: float) -> bool:
        """Whether there is no time for half of the epochs that a last run may have, but for CUT.

        ``first`` are the seconds that the first trial takes.
        """
        epoch = self.again * first / self.epochs[0]
        return epoch * max(CUT, self.epochs[-1] / 2 - CUT) > self.left()

    @property
    def of_trials(self) -> tuple[int, ...]:
        """The epochs of trials; the longest run is left to the end where there is one."""
        return self.epochs[:-1] if self.again and len(self.epochs) > 1 else self.epochs

    def longest(self, least: int) -> int:
        """Return the epochs of the longest run for which there is time at the end, but for CUT."""
        every = range(self.epochs[0], self.epochs[-1] + 1)
        return max([least, *(n for n in every if self._once_more(n - CUT) <= self.left())])

    def is_short(self) -> bool:
        """Whether there is no time for the whole of as long a run as there may be at the end."""
        return self.left_for_trials() < 0

    def _once_more(self, epochs: float) -> float:
        return self.seconds(self.best, epochs, self.again) if self.again and epochs else 0.0
