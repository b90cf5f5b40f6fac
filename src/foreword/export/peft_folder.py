"""The files of a PEFT adapter folder: its settings, and its tensors in safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foreword import files
from foreword.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TENSOR = "prompt_embeddings"
"""The one tensor of a prompt."""
BESIDE = "foreword.json"
"""What PEFT has no place for, and leaves alone."""


def write_adapter(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], bos: int = 0
) -> Path:
    """Write settings and tensors, whole or not at all, to a folder that holds nothing.

    ``bos`` (``Injection.bos``) stands in a file beside them, for an import to find.
    """
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
    content = save(dict(tensors), metadata={"format": "pt"})
    written = {CONFIG: text.encode(), WEIGHTS: content}
    with files.folder_written_whole(folder) as temporary:
        for name, data in (written | ({BESIDE: b'{"bos": %d}' % bos} if bos else {})).items():
            (temporary / name).write_bytes(data)
    return folder


def read_bos(folder: Path) -> int:
    """Read ``Injection.bos``: 0 where PEFT wrote the folder; raises UserError for no count."""
    path = folder / BESIDE
    if not path.exists():
        return 0
    found = _read_object(path).get("bos")
    if type(found) is not int or found < 0:
        raise UserError(f"{path}: 'bos' is {found!r}, not a count")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings; raises UserError where there are none."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name the one that PEFT's save_pretrained wrote")
    if not path.is_file():
        inner = sorted(found.parent.name for found in folder.glob(f"*/{CONFIG}"))
        hint = f"; did you mean {folder / inner[0]}?" if inner else ""
        raise UserError(f"{folder}: is no PEFT adapter, it lacks {CONFIG}{hint}")
    return _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: is not a JSON object")
    return config


def read_tensor(folder: Path) -> Tensor:
    """Read the one tensor of a prompt."""
    tensors = read_tensors(folder)
    path = folder / WEIGHTS
    if TENSOR not in tensors:
        raise UserError(f"{path}: holds no tensor '{TENSOR}'; it is no prompt")
    others = sorted(set(tensors) - {TENSOR})
    if others:
        raise UserError(
            f"{path}: also holds '{others[0]}', a weight of the model itself, which a prompt "
            "cannot carry"
        )
    return tensors[TENSOR]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors, in float32."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        if pickled.is_file():
            raise UserError(
                f"{pickled}: is a pickle, and only safetensors are read; save the adapter again "
                "with a newer PEFT"
            )
        raise UserError(f"{folder}: lacks {WEIGHTS}; copy the whole folder")
    try:
        with safe_open(str(path), "pt") as file:
            tensors = files.read_tensors(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is cut off or damaged ({error}); copy it again") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f"{path}: {name} holds {tensor.dtype}, not floats")
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: {name} holds NaN or Inf; the adapter is unusable")
    return {name: tensor.float() for name, tensor in tensors.items()}
