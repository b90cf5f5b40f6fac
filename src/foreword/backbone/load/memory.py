"""Whether a model's weights fit into the memory, before any of them is read."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch

from foreword.errors import UserError
from foreword.machine import memory_size

_FLOATS = {"F64", "F32", "F16", "BF16"}


def check_fits(name: str, size: int, dtype: str) -> None:
    """Raise UserError if weights of `size` bytes are larger than the machine's memory."""
    whole = memory_size()
    if whole is None or size <= whole:
        return
    halved = dtype == "float32" and size // 2 <= whole
    form = "" if dtype == "auto" else f" in {dtype}"
    raise UserError(
        f"cannot load {name!r}: its weights take {size / 1e9:.1f} GB{form}, and this machine has "
        f"{whole / 1e9:.1f} GB of memory; "
        + ("`dtype=bfloat16` takes half of it" if halved else "take a smaller model")
    )


def stored_size(folder: Path, dtype: torch.dtype | Literal["auto"]) -> int:
    """Return the bytes that a folder's weights take in memory, their floats as ``dtype``.

    What cannot be read counts as nothing.
    """
    return sum(_size(folder / name, dtype) for name in weight_files(folder))


def weight_files(folder: Path) -> set[str]:
    """Return the names of the safetensors that hold a model's weights; none if none are named."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return {"model.safetensors"}
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return set()


def _size(path: Path, dtype: torch.dtype | Literal["auto"]) -> int:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        return sum(_of_tensor(each, dtype) for each in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _of_tensor(entry: dict[str, Any], dtype: torch.dtype | Literal["auto"]) -> int:
    first, end = entry["data_offsets"]
    if dtype == "auto" or entry["dtype"] not in _FLOATS:
        return int(end - first)
    return int(prod(entry["shape"])) * dtype.itemsize
