"""Rows of feedback: which train a version and which judge it, and which a prompt can learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.prompt.answerer import Answerer
from foreword.serve.feedback.files import ABOUT

SHARE = 3
"""One of so many rows is held back."""

Line = Mapping[str, Any]
"""A row as its file of feedback keeps it."""


def is_held_back(line: Line) -> bool:
    """Whether a row judges versions, and no version trains on it; its id, a random one, decides."""
    return int(str(line[ABOUT]["id"])[:8], 16) % SHARE == 0


def part(lines: Sequence[Line]) -> tuple[list[Any], list[Any]]:
    """Part rows into those to train on, and those held back."""
    return (
        [line for line in lines if not is_held_back(line)],
        [line for line in lines if is_held_back(line)],
    )


def since(lines: Sequence[Line], time: str) -> list[Any]:
    """Return the rows that came after a time."""
    return [line for line in lines if line[ABOUT].get("time", "") > time]


def rows_of(lines: Sequence[Line]) -> list[Row]:
    """Return the rows as tasks read them."""
    return [Row(dict(line), f"feedback {line[ABOUT]['id']}") for line in lines]


def is_known(prompt: Answerer, line: Line) -> bool:
    """Whether a prompt can learn from a row: one whose label it knows, and has the fields of."""
    try:
        prompt.bound.check(rows_of([line]), answers=True)
    except UserError:
        return False
    return True
