"""What the machine of texts is told: a task's configuration, and how its rows and answers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.tasks.base import Task


class TextTask(Task):
    """A task whose answers are texts: how they are learned and decoded."""

    label_smoothing: float
    decoding: Decoding
    fusion: ClassVar[Literal["texts"]] = "texts"


@dataclass(frozen=True)
class Wording:
    """What the machine is told of one task: what is right for a row, and how answers are scored.

    ``holds`` tells whether a row, or a window of it, has what its answer is found by; the field
    ``windowed`` is parted in windows, ``stride`` tokens apart, where a row is too long. With
    ``every_turn`` all turns of the assistant are learned, not the last alone.
    """

    answer: Callable[[Row], str]
    references: Callable[[Row], Sequence[str]]
    measure: Callable[[Sequence[str], Sequence[Sequence[str]], int], dict[str, Any]]
    headline: str
    instruction: str = "Answer the request below.\n\n"
    check: Callable[[Row, bool], None] = lambda row, answers: None
    windowed: str | None = None
    stride: int = 0
    holds: Callable[[Row], bool] = lambda row: True
    every_turn: bool = False
