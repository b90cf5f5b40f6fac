"""Processes that tests start: they hear Ctrl-C, wait for signs, and end with their test."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PATIENCE = 240.0
"""Seconds for what another process does, on a machine that is busy."""

MARK = "FOREWORD_TESTS"
"""The variable by which a process of the suite, and all that it starts in turn, is known."""

_started: list[BaseProcess | subprocess.Popen[Any]] = []


def prepare() -> None:
    """Mark this process, and let those to come hear Ctrl-C: a background job may not."""
    os.environ[MARK] = str(os.getpid())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


LOADED = [
    "foreword.cli.train",
    "foreword.methods.prefix",
    "foreword.methods.soft",
    "foreword.tasks.classify",
    "foreword.tasks.generate",
    "foreword.training.tune",
    "toys",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
]
"""What a started process need not load again, which would be most of its time."""


def process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that has the package loaded already, and none of this one's threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    made = context.Process(target=target, args=arguments)
    made.start()
    _started.append(made)
    return made


def launch(*words: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a program in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.Popen(words, env=environment, start_new_session=True, **options)
    _started.append(made)
    return made


def until(true: Callable[[], Any], ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until something is true, or a process that should make it true has ended."""
    deadline = time.monotonic() + PATIENCE
    while not true() and not ended():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class Stuck:
    """Reading it from a pickle writes down the process's number in a file, and never ends."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return _wait_endlessly, (self.sign,)


def _wait_endlessly(sign: Path) -> None:
    part = sign.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(sign)
    while True:
        time.sleep(1)


def end_started() -> None:
    """End what ``process`` and ``launch`` have started and is still running."""
    while _started:
        each = _started.pop()
        if isinstance(each, subprocess.Popen):
            with contextlib.suppress(ProcessLookupError):  # the group outlives its first process
                os.killpg(each.pid, signal.SIGKILL)
            each.communicate()
        else:
            each.kill()
            each.join()


def left_over(patience: float = 0) -> dict[int, str]:
    """Return the processes that carry this one's mark, orphans too, with their command lines.

    Processes have ``patience`` seconds to end, which a Python with torch does not do at once.
    Those that multiprocessing keeps for as long as this process lives are not counted. Where the
    system does not show what processes there are, none are returned.
    """
    kept = {
        os.getpid(),
        getattr(forkserver._forkserver, "_forkserver_pid", None),
        getattr(resource_tracker._resource_tracker, "_pid", None),
    }
    deadline = time.monotonic() + patience
    while (found := _marked(kept)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _marked(kept: set[int | None]) -> dict[int, str]:
    mark = f"{MARK}={os.getpid()}".encode()
    found = {}
    for number in _numbers(Path("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            folder = Path("/proc", str(number))
            if number not in kept and mark in (folder / "environ").read_bytes().split(b"\0"):
                found[number] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def _numbers(folder: Path) -> Iterable[int]:
    return (int(n.name) for n in folder.iterdir() if n.name.isdigit()) if folder.is_dir() else ()
