"""Readings: a task's own passes, run by the engine's loop beside the requests of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import cached_property
from threading import Event
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Batch, Example, batch
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.injection import NOTHING, Injection, Mixture


class Reading:
    """Examples whose last states are wanted; on causal models they are read as rows, line by line.

    ``entered`` counts the lines that have, or had, a slot.
    """

    def __init__(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        mixture: Mixture,
        cancelled: Event,
    ) -> None:
        self.backbone, self.examples, self.mixture = backbone, examples, mixture
        self._cancelled = cancelled
        self.entered = 0
        self.done: Future[Tensor] = Future()
        self._found: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def laid(self) -> Batch:
        """The examples as lines: trees of tokens, unless a window is too short for that."""
        pairs = zip(self.examples, self.mixture.rows, strict=True)
        longest = max(each.length + self.mixture.parts[part].leading for each, part in pairs)
        return batch(self.examples, tree=self.backbone.fits_window(longest))

    @cached_property
    def wanted(self) -> list[list[int]]:
        """The tokens of each line whose states are wanted, in order."""
        found: list[set[int]] = [set() for _ in self.laid.lines]
        for line, token in self.laid.places:
            found[line].add(token)
        return [sorted(own) for own in found]

    @cached_property
    def count(self) -> int:
        """How many tokens' states are wanted."""
        return sum(map(len, self.wanted))

    @cached_property
    def rows(self) -> Counter[Injection]:
        """How many examples there are under each prompt."""
        return Counter(self.mixture.parts[part] for part in self.mixture.rows)

    def injection(self, line: int) -> Injection:
        """Return what a line is under."""
        return self.mixture.parts[self.mixture.rows[self.laid.owners[line]]]

    def hear(self, line: int, tokens: Sequence[int], states: Tensor) -> None:
        """Keep the states of a line's tokens, and give out all once they are there."""
        for token, state in zip(tokens, states, strict=True):
            self._found[line, token] = state
        if len(self._found) == self.count:
            self.done.set_result(torch.stack([self._found[place] for place in self.laid.places]))

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.done.done()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the states any more."""
        return self._cancelled.is_set()

    def drop(self) -> None:
        """End it, cancelled."""
        self.fail(CancelledError())

    def fail(self, error: BaseException) -> None:
        """Tell that it went wrong."""
        if not self.done.done():
            self.done.set_exception(error)


class ReadingBackbone(Backbone):
    """The backbone as a task sees it whose passes are to be run by the engine's loop.

    They are given up once ``cancelled`` is set.
    """

    def __init__(
        self, backbone: Backbone, submit: Callable[[Reading], None], cancelled: Event
    ) -> None:
        self.__dict__.update(vars(backbone))
        self.own, self.submit, self.cancelled = backbone, submit, cancelled

    def states(
        self,
        examples: Sequence[Example],
        injection: Injection | Mixture = NOTHING,
        lead: int = 0,
        layers: LayerRange = WHOLE,
    ) -> Tensor:
        """Let the loop run examples; return the states at their targets: (N, width).

        A ``lead`` that they share is read with each of them.
        """
        assert layers is WHOLE, "nothing is stored before"
        mixture = Mixture.of(injection, len(examples))
        reading = Reading(self, examples, mixture, self.cancelled)
        if not all(example.ids for example in examples):  # a state of the prompt's own is wanted
            return super().states(examples, injection)
        self.submit(reading)
        return reading.done.result()

    def prefill(self, *given: Any) -> None:
        """Read nothing ahead: the engine holds prompts as keys and values already."""
