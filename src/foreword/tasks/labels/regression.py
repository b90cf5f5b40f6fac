"""A score that a head gives as one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.example import Example
from foreword.injection import ClassHead
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.objective import Encoded


class Regression(Classifier):
    """A score that is ``low + (high - low) * output``, of a head with one output.

    A row's loss is the squared error of the output, and an answer is brought into the range. Of a
    folder whose trained head gives one number, the untouched model answers by that head; else,
    without a head, a score is read off the anchors.
    """

    @property
    def classes(self) -> int:  # type: ignore[override]
        """The outputs of a head: 1."""
        return 1

    @property
    def class_order(self) -> tuple[str, ...]:
        """The name of the output."""
        return ("number",)

    def class_shares(self, items: Sequence[Encoded]) -> tuple[Tensor, int | None]:
        """Return the outputs that would be right: (rows, 1)."""
        return torch.tensor([[self._output(item)] for item in items]), None

    @property
    def own_head(self) -> ClassHead | None:
        """The trained head of an encoder's folder, if it gives one number."""
        own = self.backbone.own_head
        if own is None or not own.is_number:
            return None
        low, high = self._range
        return ClassHead(own.head.weight / (high - low), (own.head.bias - low) / (high - low))

    def scores(self, logits: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return outputs, (rows, 1), or log-probabilities of the anchors."""
        if self.headed:
            return logits.float()
        own = self.own_head
        return super().scores(logits, examples) if own is None else own.scores(logits).float()

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's squared error, or the loss of the anchors: (rows,)."""
        if not self._is_number:
            return super().losses(logits, items)
        found = self.scores(logits, [])[:, 0]
        return (found - found.new_tensor([self._output(item) for item in items])).square()

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return minus the summed squared errors of the scores, and the number of rows."""
        if not self._is_number:
            return super().dev_counts(logits, items)
        found = self.scores(logits, [])[:, 0].double().tolist()
        errors = [self._score(x) - item.number for x, item in zip(found, items, strict=True)]
        return -sum(error**2 for error in errors), len(items)

    def answer_of(self, scores: Tensor) -> dict[str, Any]:
        """Return a row's score, within the range."""
        if not self._is_number:
            return super().answer_of(scores)
        return {"score": self._score(float(scores[0, 0]))}

    @property
    def _is_number(self) -> bool:
        return self.headed or self.own_head is not None

    @property
    def _range(self) -> tuple[float, float]:
        numbers = [float(name) for name in self.task.class_names]
        return numbers[0], numbers[-1]

    def _output(self, item: Encoded) -> float:
        low, high = self._range
        return (item.number - low) / (high - low)

    def _score(self, output: float) -> float:
        low, high = self._range
        return min(max(low + (high - low) * output, low), high)
