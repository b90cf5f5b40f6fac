"""Presets: settings that were measured together, from the quickest to the most accurate.

What they were chosen by is in docs/presets.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foreword.config.values import from_plain
from foreword.errors import UserError, nearest
from foreword.methods.registry import METHODS
from foreword.training.settings import Training

if TYPE_CHECKING:
    from foreword.methods.base import Method

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {
        "method": "prefix",
        "upper": 0.5,
        "start": "text",
        "length": 20,
        "rate": 1e-2,
        "epochs": 1,
        "batch_size": 8,
    },
    "balanced": {
        "method": "prefix",
        "upper": 1.0,
        "start": "demonstrations",
        "shots": 4,
        "rate": 1e-2,
        "epochs": 2,
        "batch_size": 8,
    },
    "best": {
        "method": "prefix",
        "upper": 1.0,
        "start": "demonstrations",
        "shots": 4,
        "rate": 1e-2,
        "epochs": 4,
        "batch_size": 8,
    },
}


def preset(name: str) -> tuple[Method, Training]:
    """Return the method and the training of a preset, to be changed with dataclasses.replace."""
    values = settings_of(name)
    kind = METHODS[values["method"]]
    own = {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    training = {each.name for each in dataclasses.fields(Training)} - own
    where = f"preset {name}"
    return (
        from_plain(kind, {k: v for k, v in values.items() if k in own}, where),
        from_plain(Training, {k: v for k, v in values.items() if k in training}, where),
    )


def settings_of(name: str) -> dict[str, Any]:
    """Return a preset's settings by name; raises UserError for a name that there is not."""
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}'; {nearest(name, PRESETS)}")
    return dict(PRESETS[name])
