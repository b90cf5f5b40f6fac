"""Tensors by key in one file, read through a memory map; what does not check out is not there."""

from __future__ import annotations

import itertools
import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

UNUSED = 7 * 24 * 3600.0
"""Seconds after which a file that no run has opened is removed."""


class Overflow:
    """Files that tensors are added to, and beside each one line about a tensor: place, checksum.

    A process writes to a file of its own, and reads those of the others that it found when it
    began. What a killed process has left half written, or a disk has changed, fails its checksum
    and counts as absent.
    """

    def __init__(self, path: Path, lock: FileLock, others: Sequence[Path]) -> None:
        self.path, self.lock = path, lock
        self.places: dict[str, tuple[Path, dict[str, Any]]] = {}
        self.maps: dict[Path, Any] = {}
        for each in (*others, path):
            index = each.with_suffix(".index")
            for line in index.read_text("utf-8").splitlines() if index.exists() else ():
                try:
                    entry = json.loads(line)
                    self.places[entry["key"]] = each, entry
                except (ValueError, KeyError, TypeError):  # what a killed process has left
                    continue

    @staticmethod
    def opened(folder: Path, key: str) -> Overflow | None:
        """Open the file that an earlier run has left under ``key``, None if there is none."""
        try:
            return Overflow.make(folder, key) if any(folder.glob(f"{key}.*.states")) else None
        except OSError:
            return None

    @staticmethod
    def make(folder: Path, key: str) -> Overflow:
        """Open or make a file under ``key`` that nobody else writes to; raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            path = folder / f"{key}.{number}.states"
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            _sweep(folder, path)
            found = sorted(folder.glob(f"{key}.*.states"))
            return Overflow(path, lock, [other for other in found if other != path])
        raise AssertionError

    def write(self, key: bytes, tensor: Tensor) -> None:
        """Add a tensor; raises OSError where there is no room."""
        raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        with self.path.open("ab") as data:
            start = data.seek(0, os.SEEK_END)
            data.write(raw)
        entry: dict[str, Any] = {
            "key": key.hex(),
            "start": start,
            "size": len(raw),
            "check": zlib.crc32(raw),
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
        }
        with self.path.with_suffix(".index").open("a", encoding="utf-8") as index:
            index.write(f"\n{json.dumps(entry)}")  # on a line of its own, whatever stands before
        self.places[entry["key"]] = self.path, entry

    def read(self, key: bytes) -> Tensor | None:
        """Return a tensor, None where there is none or it is damaged."""
        if key.hex() not in self.places:
            return None
        path, entry = self.places[key.hex()]
        raw = self._bytes(path, entry["start"], entry["start"] + entry["size"])
        if len(raw) != entry["size"] or zlib.crc32(raw) != entry["check"]:
            del self.places[key.hex()]
            return None
        kind = getattr(torch, entry["dtype"])
        return torch.frombuffer(bytearray(raw), dtype=kind).view(entry["shape"])

    def close(self) -> None:
        """Let another process write to the file."""
        self.lock.release()

    def _bytes(self, path: Path, start: int, stop: int) -> bytes:
        """Read through a memory map, made anew when the file has grown beyond it."""
        if stop > len(self.maps.get(path, ())):
            try:
                self.maps[path] = np.memmap(path, dtype=np.uint8, mode="r")
            except (OSError, ValueError):  # removed since, or empty
                return b""
        return bytes(self.maps[path][start:stop])


def _sweep(folder: Path, own: Path) -> None:
    """Remove the files that no run has opened for long, and mark one's own as opened."""
    for path in folder.glob("*.states"):
        if path != own and time.time() - path.stat().st_mtime > UNUSED:
            for part in (path, path.with_suffix(".index"), path.with_suffix(".lock")):
                part.unlink(missing_ok=True)
    own.touch()
