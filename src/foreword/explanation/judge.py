"""The judge: what the model scores on the same rows, with one thing or another in front of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, behind
from foreword.data.row import Row
from foreword.engine.groups import StoredStates
from foreword.engine.passes import infer
from foreword.explanation.explanation import Measured
from foreword.injection import NOTHING, Injection
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Judge:
    """Rows that are laid out once, as the dev score reads them.

    Where the injection begins with the tokenizer's first tokens, they go without their own: it is
    measured as one that does not (:meth:`standing`), so that this stays whatever is left of it.
    """

    bound: Bound
    items: Sequence[Encoded]
    injection: Injection

    @staticmethod
    def of(bound: Bound, rows: Sequence[Row], injection: Injection = NOTHING) -> Judge:
        """Lay rows out for an injection."""
        room = room_for(bound.backbone, injection)
        items = [bound.dev_example(row, room) for row in rows]
        examples = behind([item.example for item in items], injection)
        laid = [replace(i, example=e) for i, e in zip(items, examples, strict=True)]
        return Judge(bound, laid, replace(injection, bos=0))

    @property
    def backbone(self) -> Backbone:
        """The backbone that the rows are laid out for."""
        return self.bound.backbone

    @property
    def examples(self) -> list[Example]:
        """The rows as they are run."""
        return [item.example for item in self.items]

    @property
    def longest(self) -> int:
        """The tokens of the longest row."""
        return max(example.length for example in self.examples)

    def measure(
        self,
        name: str,
        injection: Injection | None = None,
        examples: Sequence[Example] | None = None,
        given: StoredStates | None = None,
        progress: Progress = lambda rows: None,
    ) -> Measured:
        """Score the rows under an injection, by default their own.

        ``examples`` takes the place of the rows, where virtual tokens in them are others;
        ``given`` are the states at which they begin. ``progress`` is told of rows that are done.
        """
        return self.measure_rows(name, injection, examples, given, progress)[0]

    def measure_rows(
        self,
        name: str,
        injection: Injection | None = None,
        examples: Sequence[Example] | None = None,
        given: StoredStates | None = None,
        progress: Progress = lambda rows: None,
    ) -> tuple[Measured, list[float]]:
        """Score the rows as :meth:`measure` does, and return the loss of each as well."""
        injection = self.injection if injection is None else injection
        examples = self.examples if examples is None else examples
        sums: tuple[float, ...] = ()
        losses, units = [0.0] * len(self.items), 0
        found = infer(self.backbone, injection, examples, tokens=self.bound.tokens, given=given)
        for group, logits in found:
            items = [self.items[i] for i in group]
            counts = self.bound.dev_counts(logits, items)
            sums = tuple(map(sum, zip_longest(sums, counts, fillvalue=0.0)))
            for row, loss in zip(group, self.bound.losses(logits, items).tolist(), strict=True):
                losses[row] = loss
            units += sum(self.bound.units(item) for item in items)
            progress(len(group))
        score = float(self.bound.dev_score(sums))
        return Measured(name, score, sum(losses) / max(1, units)), losses
