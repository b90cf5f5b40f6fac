"""Panels of help: the titles under which flags stand, and which of them ``--help-all`` adds."""

from __future__ import annotations

from cyclopts import Group

FURTHER = Group("further", show=False)
"""A flag in this group, beside its panel, is left to ``--help-all``."""

DATA = "Data"
TRAINING = "Training"
MODEL = "Model"
OUTPUT = "Output"
ACCESS = "Access"
LIMITS = "Limits"
FEEDBACK = "Feedback"

ORDER = (
    *(DATA, "Task", "Decoding", MODEL, "Method", TRAINING, "Continuing"),
    *(ACCESS, LIMITS, FEEDBACK, OUTPUT),
)
"""Panels in the order of a page, by the first word of their titles; all others come first."""


def place(title: str) -> int:
    """Return where a panel stands on a page."""
    first = title.partition(" ")[0]
    return ORDER.index(first) if first in ORDER else -1
