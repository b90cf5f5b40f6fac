"""The terminal of the command line: settings are named as flags, and a start is no silence."""

from __future__ import annotations

from foreword.cli.advice import with_flags
from foreword.cli.imports import large_imports
from foreword.terminal import Terminal, console


class CommandTerminal(Terminal):
    """The terminal, on which the settings that lines name are flags."""

    def line(self, text: str) -> None:
        """Print a line, never broken: it may hold a path."""
        super().line(with_flags(text))


def start_visibly() -> None:
    """Import what most commands stand on, which takes seconds, while a sign of life moves."""
    with console().status("starting"), large_imports():
        import foreword.backbone.backbone  # noqa: F401
