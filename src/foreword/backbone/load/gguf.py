"""GGUF files, unpacked once into a transformers folder in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from foreword.backbone.load.cache_folder import cache_root, publish
from foreword.backbone.load.quiet import one_line_errors, without_bars
from foreword.errors import UserError

_MAGIC = b"GGUF"
_SAMPLES = 64
_SAMPLE_BYTES = 4096


def unpack(path: Path) -> Path:
    """Return the transformers folder (float32 safetensors) for a causal model's `.gguf` file.

    The folder lies in the cache under the file's name and a hash of its size, name and sampled
    bytes. Where it is missing the file is unpacked, with a line and a bar on stderr.

    Raises:
        UserError: `path` is no GGUF file, or the cache cannot be written.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{path} is not a GGUF file (its first bytes are not 'GGUF')")
    target = cache_root() / "models" / f"{path.stem}-{_identity(path)}"
    if not target.is_dir():
        print(f"unpacking {path.name} into {target} (once)", file=sys.stderr, flush=True)
        publish(lambda folder: _unpack(path, folder), target)
    return target


def _identity(path: Path) -> str:
    """Hash the size, the name and 64 evenly spaced blocks of the file: 12 hex digits."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n{path.name}\n".encode())
    last = max(0, size - _SAMPLE_BYTES)
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(last * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _unpack(path: Path, folder: Path) -> None:
    source = {"gguf_file": path.name, "local_files_only": True}
    with without_bars(), _tensor_bar():
        with one_line_errors(str(path)):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                dtype=torch.float32,
                # a model that stays quantized, even in name only, refuses to be saved
                quantization_config=GgufConfig(dequantize=True),
                **source,
            )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _tensor_bar() -> Iterator[None]:
    """Show transformers' bar over a GGUF file's tensors on a terminal only, and clear it after."""
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar = reader.tqdm
    reader.tqdm = partial(bar, disable=None, leave=False)  # None: shown only on a terminal
    try:
        yield
    finally:
        reader.tqdm = bar
