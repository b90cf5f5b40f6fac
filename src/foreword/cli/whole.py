"""Whole numbers on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import CoercionError, Parameter, Token

from foreword.config.settings import SEEDS
from foreword.errors import UserError


def read_whole(kind: Any, tokens: Sequence[Token]) -> int:
    """Return a whole number; cyclopts alone would round one that is not."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


def check_seed(kind: Any, seed: int | None) -> None:
    """Raise UserError for a seed below zero, which numpy does not take, or too large for torch."""
    if seed is not None and not 0 <= seed < SEEDS:
        raise UserError(f"--seed {seed}: give 0 or more, and less than {SEEDS}")


Whole = Annotated[int, Parameter(converter=read_whole)]
"""The type of a flag that takes a whole number."""

Seed = Annotated[int, Parameter(converter=read_whole, validator=check_seed)]
"""The type of a flag that takes a seed."""
