"""The modules of the benchmarks, for their tests."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "bench"


def open_bench(name: str) -> Any:
    """Import a module of the benchmarks, which find each other in their folder."""
    with pytest.MonkeyPatch.context() as patch:  # for no longer: bench/serve.py hides tests/serve
        patch.syspath_prepend(str(BENCH))
        return importlib.import_module(name)
