"""What the machine of texts is told: a task's configuration, and how its rows and answers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.tasks.base import Task
from foreword.tasks.templates.layout import Side


class TextTask(Task, Protocol):
    """What the machine reads of a task's configuration."""

    @property
    def template(self) -> str | None:
        """How a row reads, before its answer."""

    @property
    def max_length(self) -> int:
        """Tokens of a row at most."""

    @property
    def truncate(self) -> Side:
        """The side that is cut."""

    @property
    def input_window(self) -> int | None:
        """The tokens of each field that are read at most, None for all."""

    @property
    def label_smoothing(self) -> float:
        """The share of each target that is spread evenly over the vocabulary."""

    @property
    def decoding(self) -> Decoding:
        """How answers are written."""


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
