"""Threads of the CPU: how many work, and that those that wait give their core away.

OpenMP's threads spin while they wait for each other. Beside one other busy process that takes a
core from the very thread that is waited for: a training on two cores then takes 2.5 times as long
(bench/busy.py). This module is imported before torch, since OpenMP reads its settings once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from foreword.errors import UserError

SPINNING = {
    "GOMP_SPINCOUNT": "1000",  # GNU's, in torch for Linux: turns of a loop, some microseconds
    "KMP_BLOCKTIME": "1",  # LLVM's and Intel's, in torch for macOS: milliseconds, 200 by default
}
"""How long a thread that waits may spin, by the name that each OpenMP library gives it."""

CHOSEN = ("OMP_WAIT_POLICY", *SPINNING)
"""Settings by which people choose for themselves; where one is set, all are left as they are."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait sleep soon, unless the user has chosen.

    It has no effect once torch is imported. Processes that are started later inherit it.
    """
    if not any(name in environment for name in CHOSEN):
        environment.update(SPINNING)


def use_threads(count: int) -> None:
    """Compute with this many threads, in this process and in those that it starts.

    Raises UserError for fewer than one.
    """
    if count < 1:
        raise UserError(f"`threads={count}`: give at least 1")
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
