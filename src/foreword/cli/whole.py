"""Whole numbers on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import CoercionError, Parameter, Token


def read_whole(kind: Any, tokens: Sequence[Token]) -> int:
    """Return a whole number; cyclopts alone would round one that is not."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


Whole = Annotated[int, Parameter(converter=read_whole)]
"""The type of a flag that takes a whole number."""
