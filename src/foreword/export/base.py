"""What every export format is: a configuration that writes prompts for another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task


class Format(Protocol):
    """An export format: a frozen dataclass of plain values, which are its settings.

    ``suffix`` is what the name of a written file ends with; "" for a folder.
    """

    suffix: ClassVar[str]

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write a prompt, whole or not at all, and return the file or folder.

        Raises UserError for what the format cannot represent exactly, and where it would write
        over something.
        """


@runtime_checkable
class OpenedFormat(Format, Protocol):
    """An export format that says how the other program goes on."""

    def opened(self, prompt: Prompt, path: Path) -> str:
        """Return the line to type there, which opens what was written."""


@runtime_checkable
class NotedFormat(Format, Protocol):
    """An export format of whose files there is more to know."""

    def notes(self, prompt: Prompt, rows: Sequence[Row]) -> Sequence[str]:
        """Return lines on how the other program reads a prompt, and where answers to rows part."""


@dataclass(frozen=True)
class Verified:
    """How the other program answered rows beside Foreword.

    ``equal`` is the share of ``rows`` with the same answer, and ``difference`` the largest between
    probabilities, or between logits where the program gives none; None where it gives neither.
    """

    runtime: str  # its name and version
    rows: int
    equal: float
    difference: float | None


@dataclass(frozen=True)
class NotVerified:
    """Why what was written was not run: most often, the other program is not installed."""

    reason: str


@runtime_checkable
class VerifiedFormat(Format, Protocol):
    """An export format that is tried at once in the program that it is for."""

    def verify(self, prompt: Prompt, path: Path, rows: Sequence[Row]) -> Verified | NotVerified:
        """Answer rows there, with what ``write`` wrote to ``path``, and with the prompt here."""


@runtime_checkable
class ImportFormat(Format, Protocol):
    """An export format that is read as well."""

    def read(self, path: Path, backbone: Backbone, task: Task) -> Prompt:
        """Read what the other program wrote as a prompt for ``task``, on ``backbone``.

        Raises UserError for what is damaged, does not fit, or would answer otherwise here.
        """
