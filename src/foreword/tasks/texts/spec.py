"""What differs between tasks whose answers are texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.metrics.generation import is_one_of
from foreword.tasks.base import Task


class TextTask(Task):
    """A task whose answers are texts: how they are learned and decoded."""

    label_smoothing: float
    decoding: Decoding
    fusion: ClassVar[Literal["texts"]] = "texts"


@dataclass(frozen=True)
class Wording:
    """The gold answer and the references of a row, and how answers are scored.

    ``matches`` says whether an answer is one of the references.
    The field ``windowed`` of a row that is too long is split into windows, ``stride`` tokens apart;
    ``holds`` tells whether a window contains the answer. With ``every_turn`` all turns of the
    assistant are learned, not just the last one.
    """

    answer: Callable[[Row], str]
    references: Callable[[Row], Sequence[str]]
    measure: Callable[[Sequence[str], Sequence[Sequence[str]], int], dict[str, Any]]
    headline: str
    matches: Callable[[str, Sequence[str]], bool] = is_one_of
    instruction: str = "Answer the request below.\n\n"
    check: Callable[[Row, bool], None] = lambda row, answers: None
    windowed: str | None = None
    stride: int = 0
    holds: Callable[[Row], bool] = lambda row: True
    every_turn: bool = False
