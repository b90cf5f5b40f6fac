"""A call in a process of its own, which ends with the process that waits for it.

On Linux it is forked from a server that has imported the package, which takes seconds, once for
all calls. This module imports nothing large: a process that begins watches its parent before all
else.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from types import ModuleType
from typing import Any


def call_apart(function: Callable[..., object], *arguments: Any, folder: Path) -> int:
    """Call a function in a process of its own; return that process's exit status.

    The process ends with this one, however this one ends, and ``folder`` is then removed. It runs
    the script that called only where the call needs what that defines.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(GUARD)
    with _without_script():
        context = _context()
    call = pickle.dumps((function, arguments))  # only unpickled, with all imports, under watch
    process = context.Process(target=_begin, args=(folder, call))
    with _hold_ctrl_c(), nullcontext() if b"__main__" in call else _without_script():
        process.start()
    try:
        process.join()
    finally:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


GUARD = (
    "foreword: runs that need what a script defines begin by running the script; put the call in "
    'it below `if __name__ == "__main__":`, or the definitions into a module'
)
"""What ends a script that calls while it is run for such a call."""


@contextmanager
def _without_script() -> Iterator[None]:
    """Start processes that do not run the script of this one."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes begin here; where that is a server, it is ready.

    The server imports what a run needs and computes nothing: OpenMP's threads, once started, would
    be missing in a fork. (OpenBLAS, which starts its own on import, starts them anew in a fork.)
    Elsewhere than on Linux system libraries may not be forked at all.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    with _hold_ctrl_c():
        forkserver.ensure_running()
    context.Process(target=_nothing).start()  # waits for the server, and Ctrl-C ends the wait
    return context


LOADED = ["foreword.evaluation.compare", "transformers.modeling_utils"]
"""What the server imports."""


def _nothing() -> None:
    pass


def _begin(folder: Path, call: bytes) -> None:
    _end_with_parent(folder)
    function, arguments = pickle.loads(call)
    function(*arguments)


def _end_with_parent(folder: Path) -> None:
    """End this process and remove its folder when its parent ends, for whatever reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _hold_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back until the end.

    A process that is started meanwhile ignores it; its parent ends that process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)
