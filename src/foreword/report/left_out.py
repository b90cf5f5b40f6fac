"""What a report does not show, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LeftOut:
    """A part that is not shown: ``reason`` is a sentence for people."""

    reason: str
