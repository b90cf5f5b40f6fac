"""Large libraries, imported for a command: they are most of what a user waits for at its start."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from foreword.garbage import without_collection


@contextmanager
def large_imports() -> Iterator[None]:
    """Import large libraries without what no command needs.

    Garbage is not collected meanwhile, nor ever looked for in what they hold. For the command line
    alone: what a program has made before stays for good, too.
    """
    with without_collection(), _without_scipy():
        yield
        if not gc.get_freeze_count():
            gc.freeze()


@contextmanager
def _without_scipy() -> Iterator[None]:
    """Let transformers take scipy as absent: of all that it imports, object detection needs it.

    Those are four hundred modules. A model that needs scipy is imported later, and finds it.
    """
    utils: Any = import_module("transformers.utils")
    known = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        yield
    finally:
        utils.is_scipy_available = known
