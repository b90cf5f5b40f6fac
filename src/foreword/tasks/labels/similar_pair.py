"""The score of two texts on an encoder: how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.similar import refuse_before, texts_alone
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for


class SimilarPair(Classifier):
    """A score of two texts by the cosine of their pooled states, from 0, the lowest, to 1.

    Each text is a row of its own, read after the prompt of the encoder's folder. A row's loss is
    the squared error of the cosine (Reimers and Gurevych 2019, arXiv:1908.10084). With a trained
    head the encoder reads both texts as one row, and the head scores the anchors.
    """

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the two texts of a row, with the pooled state of each as targets."""
        if self.headed:
            return super().dev_example(row, room)
        example, truncated = self._pair(row, room)
        return Encoded(example, 0, truncated, number=self.labelling.number(row))

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return each row's loss; of a cosine its squared error: (rows,)."""
        if self.headed:
            return super().losses(logits, items)
        low, high = self._range
        target = logits.new_tensor([(item.number - low) / (high - low) for item in items])
        return (_cosines(logits) - target).square()

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return minus the summed squared errors of the scores, and the number of rows."""
        if self.headed:
            return super().dev_counts(logits, items)
        found = self._scores(logits).double()
        errors = found - found.new_tensor([item.number for item in items])
        return -float(errors.square().sum()), len(items)

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return each row's score, within the range."""
        if self.headed:
            return super().predict(rows, injection, before=before, progress=progress)
        refuse_before(self.backbone, before)
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        pairs = [self._pair(row, room) for row in rows]
        found: dict[int, float] = {}
        for group, states in infer(self.backbone, injection, [example for example, _ in pairs]):
            found |= zip(group, self._scores(states).tolist(), strict=True)
            if progress is not None:
                progress(len(group))
        return [{"score": found[n], "cut": cut} for n, (_, cut) in enumerate(pairs)]

    @property
    def tokens(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """None: neither a cosine nor a head is of tokens."""
        return None

    @property
    def _range(self) -> tuple[float, float]:
        numbers = [float(name) for name in self.task.class_names]
        return numbers[0], numbers[-1]

    def _scores(self, states: Tensor) -> Tensor:
        """Return the scores of pairs of states, within the range: (2 rows, width) -> (rows,)."""
        low, high = self._range
        return low + (high - low) * _cosines(states).clamp(0, 1)

    def _pair(self, row: Row, room: int) -> tuple[Example, bool]:
        """Return the two texts as branches of one example, and whether one was truncated."""
        assert self.backbone.pooling is not None
        prompt, text = self.backbone.pooling.prompt, self.backbone.text
        written = "".join(part for part in self.template.parts if isinstance(part, str))
        if self.virtual or written.strip() not in ("", prompt.strip()):
            raise UserError(
                f"template {self.template.source!r}: how alike two texts are is read off each of "
                "them alone; leave `template` out, or train a head too (`method=prefix+head`)"
            )
        first, last = text.around
        most = self.limit(room) - len(first) - len(last)
        cut = text.beginning if self.task.truncate == "right" else text.ending
        with reading(row.where):
            whole = [prompt + value for value in self._values(row).values()]
            kept = [text.ids(value) for value in whole]
            if truncated := max(map(len, kept)) > most:
                kept = [text.ids(cut(value, most)) for value in whole]
        return texts_alone(self.backbone, [ids[:most] for ids in kept]), truncated


def _cosines(states: Tensor) -> Tensor:
    """Return the cosine of each two states that follow one another: (2 N, width) -> (N,)."""
    return F.cosine_similarity(states[::2].float(), states[1::2].float(), dim=1)
