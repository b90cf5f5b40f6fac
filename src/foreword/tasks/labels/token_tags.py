"""Tags on an encoder: by the states of the words themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.example import Example
from foreword.backbone.tokenizer import reading
from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection, Mixture
from foreword.tasks.gold import texts_of
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.similar import refuse_before
from foreword.tasks.objective import Encoded
from foreword.tasks.templates.layout import room_for, with_space
from foreword.tasks.templates.template import Field


class TokenTagger(Classifier):
    """A tag is scored on the state of its word's last token, in the one pass of the sentence.

    The template is the sentence, with plain text around it. Without a head a tag is scored by how
    alike the state and the tag's name are.
    """

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the sentence, with a target for every word."""
        golds = self.labelling.gold(row)
        return Encoded(self._lay_out(row, room), golds[0], False, golds=golds)

    def check_length(self, row: Row) -> None:
        """Raise UserError if a sentence is too long to be read whole, even without a prompt."""
        self._lay_out(row, room_for(self.backbone, NOTHING))

    def demonstration(self, row: Row) -> str:
        """Return the sentence within its template."""
        return f"{self._text(row)[0]}{self.template.after}"

    def _text(self, row: Row) -> tuple[str, list[int]]:
        """Return the row as it is read, and where each of its words ends in that."""
        token_field = self.pair[0]
        parts = self.template.parts
        if parts.count(Field(token_field)) != 1 or any(
            not isinstance(part, str) for part in parts if part != Field(token_field)
        ):
            raise UserError(
                f"template {self.template.source!r}: an encoder reads the words themselves, in "
                f"{{{token_field}}} with plain text around it"
            )
        at = parts.index(Field(token_field))
        text, ends = "".join(map(str, parts[:at])), []
        for number, word in enumerate(texts_of(row, token_field)):
            text += with_space(text, word) if number else word
            ends.append(len(text))
        return text + "".join(map(str, parts[at + 1 :])), ends

    def _lay_out(self, row: Row, room: int) -> Example:
        text, ends = self._text(row)
        first, last = self.backbone.text.around
        with reading(row.where):
            ids, places = self.backbone.text.placed(text)
        most = self.limit(room) - len(first) - len(last)
        if len(ids) > most:
            raise self.too_long(row, most)
        targets = []
        for end in ends:
            before = [n for n, (start, _) in enumerate(places) if start < end]
            targets.append((0, before[-1] if before else 0))
        bos = len(first) if self.backbone.is_causal else 0
        return Example((*first, *last), len(first), (tuple(ids),), tuple(targets), bos=bos)

    def _score_rows(
        self,
        rows: Sequence[Row],
        injection: Injection | Mixture,
        before: str,
        count: int,
        progress: Any,
    ) -> tuple[list[Tensor], list[bool]]:
        """Return each row's log-probabilities, (words, labels); no row is truncated."""
        refuse_before(self.backbone, before)
        room = room_for(self.backbone, injection)
        examples = [self._lay_out(row, room) for row in rows]
        by_row: dict[int, Tensor] = {}
        for group, logits in infer(self.backbone, injection, examples):
            own = [examples[n] for n in group]
            sizes = [len(example.targets) for example in own]
            by_row |= zip(group, torch.split(self.scores(logits, own), sizes), strict=True)
            if progress is not None:
                progress(len(group))
        return [by_row[n] for n in range(len(rows))], [False] * len(rows)
