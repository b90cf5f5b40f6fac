"""One input with the answer that the prompt gives to it, as an example whose loss can be taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from foreword.backbone.example import behind
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded
from foreword.tasks.registry import name_of
from foreword.tasks.templates.layout import room_for


@dataclass(frozen=True)
class Answer:
    """What is answered to an input: ``text`` for people, ``item`` for the model.

    The item stands behind the injection that it was made for.
    """

    text: str
    item: Encoded


def answer(bound: Bound, row: Row, injection: Injection) -> Answer:
    """Let the prompt answer a row; raises UserError where that is no label and no text."""
    field = bound.task.pair[1]
    found: Any = bound.predict([row], injection)[0][bound.answer]
    if not isinstance(found, str):
        kind = name_of(bound.task)
        raise UserError(f"an answer of a task of kind {kind} is no single label or text")
    said = Row({**row.fields, field: found}, row.where)
    item = bound.train_example(said, room_for(bound.backbone, injection))
    (example,) = behind([item.example], injection)
    return Answer(found, replace(item, example=example))
