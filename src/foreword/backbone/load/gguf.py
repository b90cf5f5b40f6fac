"""GGUF files, unpacked once into a transformers folder in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.text import Text
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from foreword.backbone.load.cache_folder import cache_root, publish
from foreword.backbone.load.quiet import one_line_errors, without_bars
from foreword.errors import UserError

_MAGIC = b"GGUF"
_SAMPLES = 64
_SAMPLE_BYTES = 4096


def unpacked(path: Path) -> Path:
    """Return the transformers folder (float32 safetensors) for a causal model's `.gguf` file.

    The folder lies in the cache under the file's name and a hash of its size, name and sampled
    bytes. It is made when it is missing, with a bar on stderr, and read in seconds ever after.

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
    plan = {  # seconds on two cores; only their ratio outlives the first step
        "reading the tokenizer": 6.0,
        "unpacking the weights": 16.0 + 40.0 * gigabytes,
        "writing safetensors": 1.0 + 20.0 * gigabytes,
    }
    with without_bars(), _bar(plan) as begin:
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
    """Show a bar on stderr over the steps of `plan` (seconds each); yield what begins a step.

    Most of the work is silent inside transformers, so within a step the bar follows the clock: it
    divides the planned seconds by the pace of the steps done, and waits short of the step's end.
    """
    console = Console(file=sys.stderr)  # bound now: the block below replaces sys.stderr
    columns = (TextColumn("{task.description}"), _Gauge(), TimeElapsedColumn(), _Left())
    bar = Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
    bar.add_task("", total=sum(plan.values()), began=0.0, planned=0.0)
    (task,) = bar.tasks

    def begin(title: str, planned: float) -> None:
        done = task.completed + task.fields["planned"]
        bar.update(
            task.id, description=title, completed=done, began=task.elapsed or 0.0, planned=planned
        )

    with bar, contextlib.redirect_stderr(_WithoutRedraws(sys.stderr)):
        yield lambda title: begin(title, plan[title])
        begin("done", 0.0)


def _done(task: Task) -> tuple[float, float]:
    """Guess the share that is done and the seconds left."""
    elapsed, began = task.elapsed or 0.0, task.fields["began"]
    pace = began / task.completed if task.completed else 1.0  # seconds for a planned second
    within = min((elapsed - began) / pace, 0.98 * task.fields["planned"])
    total = task.total or 1.0
    done = task.completed + within
    return done / total, (total - done) * pace


class _Gauge(ProgressColumn):
    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(total=1.0, completed=_done(task)[0], width=24)


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.finished else f"about {_done(task)[1]:.0f} s left")


class _WithoutRedraws(io.TextIOBase):
    """A stderr that drops lines redrawn in place: transformers' GGUF reader draws a bar of its own.

    That bar has no switch, and it would tear the one that covers the whole of the work.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._redrawing = False

    def write(self, text: str) -> int:
        if text.startswith("\r"):
            self._redrawing = True
        elif not (self._redrawing and text == "\n"):  # the newline that ends a redrawn line
            self._redrawing = False
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
