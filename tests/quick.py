"""Which cases of a test run: some of them every time, others as slow tests, or with a library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(count: int, cases: Iterable[Any]) -> list[Any]:
    """Return the cases of a parametrized test, those after the first few as slow tests."""
    return [
        case if n < count else pytest.param(*_values(case), marks=pytest.mark.slow)
        for n, case in enumerate(cases)
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


def need_library(kind: str) -> None:
    """Skip a test of a kind of quantization whose library is not installed."""
    if (library := {"int8": "torchao", "int4": "bitsandbytes"}.get(kind)) is not None:
        pytest.importorskip(library)
