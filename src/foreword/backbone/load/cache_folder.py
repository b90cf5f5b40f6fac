"""The user's cache folder, and how a folder is written to it atomically."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from foreword.errors import UserError

_ABANDONED_AFTER = 24 * 3600.0  # s; no build takes a day, so an older one was killed


def cache_root() -> Path:
    """Return the cache folder: `FOREWORD_CACHE` if set, else the platform's."""
    chosen = os.environ.get("FOREWORD_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("foreword"))


def publish(build: Callable[[Path], None], target: Path) -> Path:
    """Write the folder `target` by `build(folder)`, atomically; return `target`.

    `build` fills a temporary folder beside `target`, which is flushed to the disk and renamed. A
    `target` that exists is kept, also if another process wrote it meanwhile. An error in `build`
    is raised again, and the temporary folder is deleted.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    if target.is_dir():
        return target
    parent = target.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, target.name)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
    except OSError as error:
        raise _unwritable(parent, error.strerror or str(error)) from error
    try:
        build(temporary)
        _flush(temporary)
        _rename(temporary, target)
    except Exception as error:
        if _is_disk_full(error):
            raise _unwritable(parent, "no space left on the disk") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError:
        if not target.is_dir():  # if it is, another process won the race: its folder is as good
            raise


def _flush(folder: Path) -> None:
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _sweep(parent: Path, name: str) -> None:
    """Delete what a killed process left of the same folder."""
    for left in parent.glob(f".{name}.*"):
        with suppress(FileNotFoundError):  # another process may just have renamed its own
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER:
                shutil.rmtree(left, ignore_errors=True)


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors and tokenizers write from Rust: their errors carry the system's words, no errno
    return os.strerror(errno.ENOSPC) in str(error)


def _unwritable(folder: Path, reason: str) -> UserError:
    return UserError(
        f"cannot write to the cache folder {folder}: {reason}; "
        "mend that, or set FOREWORD_CACHE to another folder"
    )
