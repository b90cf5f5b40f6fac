"""The machine's memory: sizes as people write them, how much there is, and how much is free."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.errors import UserError

if TYPE_CHECKING:
    import torch

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

UNITS = {"mb": 10**6, "gb": 10**9, "tb": 10**12, "mib": 2**20, "gib": 2**30, "tib": 2**40}

M_MMAP_THRESHOLD = -3
"""What glibc's malloc.h calls the setting."""

_DONTNEED = 4
"""What Linux's mman.h calls MADV_DONTNEED."""

LARGE = 128 * 1024
"""Bytes of a block that is handed back when it is freed; where glibc's own bound begins."""


def bytes_of(text: str) -> int:
    """Read a size such as ``4GB``, ``3.5 GB`` or ``800MiB``; raises UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b)", text.strip().lower())
    if found is None or found[2] not in UNITS or float(found[1]) <= 0:
        raise UserError(f"`memory` is {text!r}; give a size with its unit, such as 4GB or 800MB")
    return int(float(found[1]) * UNITS[found[2]])


def shown(size: float) -> str:
    """Write a size for people, in GB with two digits, rounded up."""
    return f"{-(-size // 10**7) / 100:.2f} GB"


def return_what_is_freed() -> None:
    """Have the C library hand back to the system each large block that is freed, from now on.

    glibc keeps such blocks for later by a bound that grows with them, in pieces that fit nothing
    else: a third more than the tensors that stand. Other libraries are left as they are.
    """
    library = _library()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.malloc_trim(0)


def return_freed() -> None:
    """Hand back to the system, this once, what the C library keeps of freed memory."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    """Return the C library where it is glibc, which others of Linux are not."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    known = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if known else None


def is_mapped(place: int) -> bool:
    """Whether an address is that of a file that is mapped: of it only what is read is in memory."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    for line in lines:
        extent, _, _, _, inode, *_ = line.split()
        first, end = (int(each, 16) for each in extent.split("-"))
        if first <= place < end:
            return inode != "0"
    return False


def let_go(extents: Sequence[tuple[int, int]]) -> None:
    """Take what was read of mapped files out of memory; it is read again where it is asked for.

    ``extents`` are addresses and bytes, of which those that are not mapped from a file are left.
    What a process has written there itself would be lost, so they must be as they were read.
    """
    library = _library()
    if library is None:
        return
    page = os.sysconf("SC_PAGE_SIZE")
    for place, size in extents:
        first, end = -(-place // page) * page, (place + size) // page * page
        if first < end and is_mapped(first):
            library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _DONTNEED)


def memory_size() -> int | None:
    """Return the bytes of memory that there are for this process, if the system says so."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
    for path in map(Path, _LIMITS):  # of a container
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return min(found)


def room_of(device: torch.device) -> int | None:
    """Return the bytes that a run may come to hold on a device: what it holds, and what is free.

    On a CPU those of the machine, of its swap, and of the container where one sets a limit; None
    where that cannot be read.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    machine = _table(Path("/proc/meminfo"))
    held = _table(Path("/proc/self/status")).get("VmRSS")
    if device.type != "cpu" or held is None or "MemAvailable" not in machine:
        return None
    free = machine["MemAvailable"] + machine.get("SwapFree", 0)
    return held + min(free, *_left_to_group(free))


def _table(path: Path) -> dict[str, int]:
    """Read lines such as ``MemFree: 12 kB`` into bytes; empty where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = (re.fullmatch(r"(\w+):\s+(\d+) kB", line) for line in lines)
    return {each[1]: int(each[2]) * 1024 for each in found if each is not None}


def _left_to_group(free: int) -> tuple[int]:
    """Return what the container leaves (cgroups, version 2), ``free`` where it sets no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip()
        inside = folder / own.lstrip(os.sep)
        folder = inside if (inside / "memory.max").exists() else folder
        most = int((folder / "memory.max").read_text(encoding="utf-8"))  # "max" is no number
        held = int((folder / "memory.current").read_text(encoding="utf-8"))
        parts = (folder / "memory.stat").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return (free,)
    files = re.search(r"^inactive_file (\d+)$", parts, re.MULTILINE)  # which are given up at need
    return (most - held + (0 if files is None else int(files[1])),)
