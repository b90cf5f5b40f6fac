"""Hooks on modules that a pass of another thread may run through at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def own_passes(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that hears the passes of this thread, and leaves those of others alone."""
    owner = threading.get_ident()

    def heard(*call: Any) -> Any:
        return hook(*call) if threading.get_ident() == owner else None

    return heard
