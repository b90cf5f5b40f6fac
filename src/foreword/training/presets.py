"""Presets: settings that were measured together, from the quickest to the most accurate.

What they were chosen by is in docs/presets.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foreword.errors import UserError, nearest
from foreword.training.settings import Training

if TYPE_CHECKING:
    from foreword.methods.base import Method

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"epochs": 1, "batch_size": 8},
    "balanced": {"epochs": 2, "batch_size": 8},
    "best": {"epochs": 4, "batch_size": 8},
}

RATE = 1e-2
"""The learning rate of a prefix without a head under a preset."""

METHODS = ("auto", "prefix", "prefix+head")
"""What a preset was measured with."""

ABOUT = {
    "fast": "one pass over the rows, for a first impression; balanced takes two, best takes four",
    "balanced": "two passes over the rows; best takes four",
    "best": "four passes over the rows; fast takes one, balanced takes two",
}
"""What a preset does, and what it gives up beside the others."""

NEXT = {
    "fast": "--preset balanced, twice the steps",
    "balanced": "--preset best, twice the steps",
    "best": "more rows, or another method: foreword compare --methods auto,lora,prefix+lora",
}
"""What may score higher than a preset does."""


def gives_up(name: str) -> str:
    """Return a line that says before a run what a preset is for."""
    return f"preset {name}: {ABOUT[name]}"


def after(name: str) -> str:
    """Return a line that says after a run what would come next."""
    return f"next, for a higher score: {NEXT[name]}"


def preset(name: str) -> tuple[Method, Training]:
    """Return the method and the training of a preset, to be changed with dataclasses.replace."""
    from foreword.methods.auto import Auto

    return Auto(rate_alone=RATE), Training(**settings_of(name))


def settings_of(name: str) -> dict[str, Any]:
    """Return a preset's settings by name; raises UserError for a name that there is not."""
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}'; {nearest(name, PRESETS)}")
    return dict(PRESETS[name])
