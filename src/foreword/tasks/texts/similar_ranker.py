"""Rankings on an encoder: candidates by how alike they and the history are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.injection import Injection, Mixture
from foreword.tasks.labels.similar import SCALE, refuse_before, texts_alone
from foreword.tasks.templates.layout import field_texts, room_for
from foreword.tasks.texts.ranker import Ranker, answer_from


class SimilarRanker(Ranker):
    """A candidate's score is the cosine of its pooled state with that of the history.

    Each text is a row of its own; a candidate is read after what the encoder's folder puts before
    a text that is searched for (``Pooling.passage``), and loses its end where it is too long. The
    softmax of the loss is over ``SCALE`` times the cosines.
    """

    scale = SCALE

    def _history(self, row: Row, room: int) -> tuple[list[int], bool]:
        """Return the history's tokens, without special ones, and whether it was cut."""
        whole = self._join_lists(row)
        values = field_texts(self.backbone, whole, self.fields, self.task.input_window)
        filled = self.fill(values, room, row.where)
        first, last = self.backbone.text.around
        return list(filled.ids[len(first) : len(filled.ids) - len(last)]), filled.truncated

    def _candidate(self, text: str, room: int, where: str) -> tuple[list[int], bool]:
        assert self.backbone.pooling is not None
        first, last = self.backbone.text.around
        most = self.limit(room) - len(first) - len(last)
        with reading(where):
            ids = self.backbone.text.ids(self.backbone.pooling.passage + text)
        return ids[:most], len(ids) > most

    def _lay_out(self, row: Row, texts: Sequence[str], room: int) -> tuple[Example, bool]:
        """Return the history and its candidates as branches, and whether something was cut."""
        parts = [self._history(row, room), *(self._candidate(t, room, row.where) for t in texts)]
        return texts_alone(self.backbone, [ids for ids, _ in parts]), any(cut for _, cut in parts)

    def _scores(self, logits: Tensor, examples: Sequence[Example]) -> list[Tensor]:
        """Return the cosines of each example's candidates: (candidates,) per example."""
        found = F.normalize(logits.float(), dim=1)
        parts = torch.split(found, [len(example.branches) for example in examples])
        return [part[1:] @ part[0] for part in parts]

    def predict(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        *,
        before: str = "",
        progress: Any = None,
    ) -> list[dict[str, Any]]:
        """Return each row's candidates, best first, and their cosines.

        A candidate of several rows is read once.
        """
        refuse_before(self.backbone, before)
        self.check(rows, answers=False)
        room = room_for(self.backbone, injection)
        texts = [self.candidates(row).texts for row in rows]
        own = Mixture.of(injection, len(rows))
        read: dict[tuple[int, str], str] = {}  # a prompt's number and a text, to where it stands
        for part, row, listed in zip(own.rows, rows, texts, strict=True):
            for text in listed:
                read.setdefault((part, text), row.where)
        found = [
            *(self._history(row, room) for row in rows),
            *(self._candidate(text, room, where) for (_, text), where in read.items()),
        ]
        under = injection
        if isinstance(injection, Mixture):
            under = Mixture(own.parts, [*own.rows, *(part for part, _ in read)])
        states = states_of(
            self.backbone, under, [texts_alone(self.backbone, [ids]) for ids, _ in found]
        )
        unit = [F.normalize(state[0].float(), dim=0) for state in states]
        place = {key: len(rows) + number for number, key in enumerate(read)}
        answers = []
        for number, (part, listed) in enumerate(zip(own.rows, texts, strict=True)):
            at = [place[part, text] for text in listed]
            scores = [float(unit[number] @ unit[each]) for each in at]
            answers.append(answer_from(listed, scores, any(found[n][1] for n in (number, *at))))
        if progress is not None:
            progress(len(rows))
        return answers
