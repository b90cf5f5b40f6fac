"""Threads of the CPU: how many work, and that those that wait give their core away.

OpenMP's threads spin while they wait for each other. Beside one other busy process that takes a
core from the very thread that is waited for: a training on two cores then takes 2.5 times as long
(bench/busy.py). This module is imported before torch, since OpenMP reads its settings once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from foreword.errors import UserError

SPINNING = {
    "GOMP_SPINCOUNT": "1000",  # GNU's, in torch for Linux: turns of a loop, some microseconds
    "KMP_BLOCKTIME": "1",  # LLVM's and Intel's, in torch for macOS: milliseconds, 200 by default
}
"""How long a thread that waits may spin, by the name that each OpenMP library gives it."""

_SOFT = 1
"""What OpenMP calls ``omp_pause_soft``."""

CHOSEN = ("OMP_WAIT_POLICY", *SPINNING)
"""Settings by which people choose for themselves; where one is set, all are left as they are."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait sleep soon, unless the user has chosen.

    It has no effect once torch is imported. Processes that are started later inherit it.
    """
    if not any(name in environment for name in CHOSEN):
        environment.update(SPINNING)


def end_idle_threads() -> None:
    """End the threads that GNU's OpenMP keeps for the next parallel work of the calling thread.

    While there are more such threads than cores, in all pools together, those that work spin for
    far less than ``GOMP_SPINCOUNT`` says, and sleep between small operations. So a thread that has
    computed, and will not for long, should not keep its own.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return
    import ctypes  # late: it takes some milliseconds of each command

    for path in {line.split()[-1] for line in maps.splitlines() if "/libgomp" in line}:
        pause = getattr(ctypes.CDLL(path), "omp_pause_resource_all", None)
        if pause is not None:  # of OpenMP 5.0
            pause(_SOFT)


def use_threads(count: int) -> None:
    """Compute with this many threads, in this process and in those that it starts.

    Raises UserError for fewer than one.
    """
    if count < 1:
        raise UserError(f"`threads={count}`: give at least 1")
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
