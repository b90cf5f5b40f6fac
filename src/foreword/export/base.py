"""What every export format is: a configuration that writes prompts for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from foreword.backbone.backbone import Backbone
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task


class Format(Protocol):
    """An export format: a frozen dataclass of plain values, which are its settings."""

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
class ImportFormat(Format, Protocol):
    """An export format that is read as well."""

    def read(self, path: Path, backbone: Backbone, task: Task) -> Prompt:
        """Read what the other program wrote as a prompt for ``task``, on ``backbone``.

        Raises UserError for what is damaged, does not fit, or would answer otherwise here.
        """
