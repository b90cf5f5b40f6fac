"""GGUF files, unpacked once into a transformers folder in the cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
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
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
from transformers.modeling_gguf_pytorch_utils import (
    GGUF_SUPPORTED_ARCHITECTURES,
    load_gguf_checkpoint,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from foreword.backbone.load.cache_folder import cache_root, publish
from foreword.backbone.load.folder import first_of
from foreword.backbone.load.gguf_header import Header, Strings, read_header
from foreword.backbone.load.gguf_rotary import ROTARY_TENSORS, read_rotary, set_rotary
from foreword.backbone.load.gguf_weights import write_weights
from foreword.backbone.load.memory import check_fits
from foreword.backbone.load.quiet import one_line_errors, without_bars
from foreword.errors import UserError
from foreword.grammar import with_article

_VERSION = 2
"""Counts changes of what unpacking writes, so that a folder from before one is not taken."""

_START = 1 << 25  # bytes; a header takes 7 MB for a vocabulary of 262,144
_SAMPLES = 64
_SAMPLE_BYTES = 4096
_ONE_AT_A_TIME = threading.Lock()


def unpack(path: Path) -> Path:
    """Return the transformers folder (float32 safetensors) for a causal model's `.gguf` file.

    The folder lies in the cache under the file's name and a hash of its size, name, header
    and sampled bytes. Where it is missing the file is unpacked, with a line and a bar on stderr.

    Raises:
        UserError: `path` is no whole GGUF file of a model that transformers reads, the model is
            larger than the memory, or the cache cannot be written.
    """
    target = cache_root() / "models" / f"{path.stem}-{_identity(path)}"
    if not target.is_dir():
        header = read_header(path)
        if not {"tokenizer.ggml.model", "tokenizer.ggml.tokens"} <= header.values.keys():
            raise UserError(
                f"cannot load '{path}': it holds no tokenizer; take a file that llama.cpp's "
                "convert_hf_to_gguf.py wrote of the whole model"
            )
        check_fits(str(path), 4 * header.count, "float32")
        print(f"unpacking {path.name} into {target} (once)", file=sys.stderr, flush=True)
        with _ONE_AT_A_TIME:
            publish(lambda folder: _unpack(header, folder), target)
    return target


def _identity(path: Path) -> str:
    """Hash the size, the name, the start and 64 evenly spaced blocks of the file: 12 hex digits."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{_VERSION}\n{size}\n{path.name}\n".encode())
    last = max(0, size - _SAMPLE_BYTES)
    with path.open("rb") as file:
        digest.update(file.read(_START))
        for i in range(_SAMPLES):
            file.seek(last * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _unpack(header: Header, folder: Path) -> None:
    path = header.path
    source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    rotary = read_rotary(header)
    with without_bars(), _read_once(header), _bar(header.count) as move:
        found = _config_values(header)
        with one_line_errors(str(path)):
            AutoTokenizer.from_pretrained(path.parent, **source).save_pretrained(folder)
        if header.architecture in GGUF_ARCHS:
            _unpack_by_transformers(header, rotary, folder, source)
            return
        with one_line_errors(str(path)), torch.device("meta"):
            config = AutoConfig.from_pretrained(path.parent, **source)
            loader: Any = AutoModelForCausalLM
            outline = loader.from_config(config, dtype=torch.float32)
        set_rotary(outline.config, rotary, header)
        unused = write_weights(header, found, outline, folder / "model.safetensors", move)
        if unused := unused - set(ROTARY_TENSORS):
            some = first_of(unused)
            print(f"note: '{path}' leaves {some} of its tensors unused", file=sys.stderr)
        outline.config.architectures = [type(outline).__name__]
        outline.config.save_pretrained(folder)
        if outline.generation_config is not None:
            outline.generation_config.save_pretrained(folder)


def _config_values(header: Header) -> dict[str, Any]:
    """Return what transformers reads of a file's config; raise UserError where it does not."""
    name = header.architecture
    if name in GGUF_ARCHS:
        return {}
    try:
        read: Any = load_gguf_checkpoint
        found: dict[str, Any] = read(str(header.path))["config"]
    except ValueError as error:
        if "is not supported" not in str(error):
            raise UserError(f"cannot load '{header.path}': {error}") from error
        known = ", ".join(sorted({*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_ARCHS} - {"general"}))
        raise UserError(
            f"cannot load '{header.path}': transformers reads no GGUF file of "
            f"{with_article(name)} model (it reads {known}); give the model's transformers folder"
        ) from error
    if found.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"cannot load '{header.path}': of GGUF files only causal models are read, and "
            f"{name} is none; give the model's transformers folder"
        )
    return found


def _unpack_by_transformers(
    header: Header, rotary: Mapping[str, Any], folder: Path, source: dict[str, Any]
) -> None:
    with one_line_errors(str(header.path)):
        model = AutoModelForCausalLM.from_pretrained(
            header.path.parent,
            dtype=torch.float32,
            # a model that stays quantized, even in name only, refuses to be saved
            quantization_config=GgufConfig(dequantize=True),
            **source,
        )
    set_rotary(model.config, rotary, header)
    model.save_pretrained(folder)


@contextlib.contextmanager
def _read_once(header: Header) -> Iterator[None]:
    """Have transformers take a file's values from `header`; its own reader takes 10 s each time.

    The table of tensor names, which it makes for every module of a model, is made once.
    """
    fields = {
        key: _field(*value)
        for key, value in header.values.items()
        if ".rope.scaling." not in key  # `read_rotary` reads it
    }
    reader = SimpleNamespace(fields=fields, tensors=header.tensors)
    changes = {
        "GGUFReader": lambda path: reader,
        "get_tensor_name_map": functools.cache(gguf.get_tensor_name_map),
    }
    before = {name: getattr(gguf, name) for name in changes}
    for name, change in changes.items():
        setattr(gguf, name, change)
    try:
        yield
    finally:
        for name, change in before.items():
            setattr(gguf, name, change)


def _field(value: Any, kind: int) -> SimpleNamespace:
    """Return a value as a field of gguf's reader; of strings in an array there is the count."""
    if isinstance(value, Strings):
        zero = gguf.GGUFValueType.UINT8
        return SimpleNamespace(parts=[[0]], data=[0] * value.count, types=[zero])
    if isinstance(value, list):
        types = [gguf.GGUFValueType.ARRAY, kind]
        return SimpleNamespace(
            parts=[[each] for each in value], data=range(len(value)), types=types
        )
    part = value.encode() if isinstance(value, str) else [value]
    return SimpleNamespace(parts=[part], data=[0], types=[kind])


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar over so many values on a terminal; yield what moves it by some."""
    console = Console(stderr=True)
    columns = TextColumn("unpacking"), BarColumn(24), TimeElapsedColumn(), _SecondsLeft()
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


class _SecondsLeft(ProgressColumn):
    """The seconds that are left at the pace so far."""

    def render(self, task: Task) -> Text:
        passed, done = task.elapsed or 0.0, task.completed
        left = passed * ((task.total or 0.0) - done) / done if done else 0.0
        return Text(f"about {max(left, 1.0):.0f} s left" if done else "")
