"""GGUF files, unpacked once into a transformers folder in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text
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
    gigabytes = path.stat().st_size / 1e9
    source = {"gguf_file": path.name, "local_files_only": True}
    plan = {  # seconds on two cores; only their ratio matters after the first step
        "reading the tokenizer": 6.0,
        "unpacking the weights": 16.0 + 40.0 * gigabytes,
        "writing safetensors": 1.0 + 20.0 * gigabytes,
    }
    with without_bars(), _without_tensor_bar(), _bar(plan) as begin:
        with one_line_errors(str(path)):
            begin("reading the tokenizer")
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
            begin("unpacking the weights")
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                dtype=torch.float32,
                # a model that stays quantized, even in name only, refuses to be saved
                quantization_config=GgufConfig(dequantize=True),
                **source,
            )
        begin("writing safetensors")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _bar(plan: Mapping[str, float]) -> Iterator[Callable[[str], None]]:
    """Show a bar over the steps of ``plan`` (seconds each) on a terminal; yield what begins one."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn(), _SecondsLeft()
    off = not console.is_terminal
    done = 0.0
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task("", total=sum(plan.values()), began=0.0)

        def begin(step: str) -> None:
            nonlocal done
            bar.update(task, description=step, completed=done, began=bar.tasks[0].elapsed or 0.0)
            done += plan[step]

        yield begin


class _SecondsLeft(ProgressColumn):
    """The planned seconds that are left, at the pace of the steps that are done."""

    def render(self, task: Task) -> Text:
        began = task.fields["began"]
        pace = began / task.completed if task.completed else 1.0
        left = ((task.total or 0.0) - task.completed) * pace + began - (task.elapsed or 0.0)
        return Text(f"about {max(left, 1.0):.0f} s left")


@contextlib.contextmanager
def _without_tensor_bar() -> Iterator[None]:
    """Silence transformers' bar over a GGUF file's tensors, which has no switch."""
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar = reader.tqdm
    reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        reader.tqdm = bar
