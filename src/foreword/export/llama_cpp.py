"""Export: a prompt as a file of llama.cpp, the saved state of a sequence, for one GGUF."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import random
import shlex
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config.settings import FILE, setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.base import NotVerified, Verified
from foreword.export.beside import Reader, compare
from foreword.export.llama_state import ORDERS, Layout, UnknownLayoutError, difference, fill
from foreword.export.past_window import past_window
from foreword.export.prefix import Prefix, prefix_of
from foreword.files import write_whole
from foreword.injection import KV
from foreword.prompt.prompt import Prompt

PROBE = 16
"""Tokens by which a GGUF is recognised as the prompt's model."""

HEAD = 12
"""Bytes before the tokens of a file: what it is, its version, and their number."""

SAME_MODEL = 0.35
"""The largest relative difference of keys and values between a model and its quantized file."""

INSTEAD = (
    "write it with `to=peft`, and make it an adapter there with llama.cpp's convert_lora_to_gguf.py"
)


@dataclass(frozen=True)
class LlamaCpp:
    """A file that ``llama-server --slot-save-path`` restores and llama-cpp-python loads."""

    suffix: ClassVar[str] = ".bin"

    gguf: str | None = setting(
        None, help="llama.cpp's file of the prompt's model", common=True, values=FILE
    )
    cache_type: Literal["f16", "f32"] = setting(
        "f16", help="type of the keys and values there (--cache-type-k and -v)", common=True
    )
    flash_attention: Literal["on", "off"] = setting(
        "on", help="whether flash attention is on there (-fa)", common=True
    )

    def write(self, prompt: Prompt, path: Path) -> Path:
        """Write the file; raises UserError for what keys and values cannot hold, and another GGUF.

        llama.cpp itself reads as many placeholders as the prompt has positions and gives its state,
        in which their keys and values are then the prompt's.
        """
        if path.exists():
            raise UserError(f"{path}: already exists; name a new file")
        library, gguf = _library(), self._file()
        prefix = _prefix(prompt)
        llama = self._open(library, gguf, prefix.length + 1)
        _check_sizes(library, llama, gguf, prefix)
        ids = placeholders(prefix, llama.n_vocab())
        llama.eval(ids)
        head, state = _saved(library, llama, ids)
        try:
            layout = Layout.of(state, len(ids))
        except UnknownLayoutError:
            raise UserError(
                f"llama-cpp-python {version('llama-cpp-python')}: keeps the state of {gguf} in a "
                "layout that is not known (0.3.36 was the last that was tried)"
            ) from None
        places = _places(prefix, layout, gguf)
        read = prefix.backbone.kv(ids[:PROBE])
        known = [_plain(read[prefix.sites[n].name]) for n in places]
        order = min(ORDERS, key=lambda each: difference(state, layout, known, each))
        apart = difference(state, layout, known, order)
        if not apart <= SAME_MODEL:
            raise UserError(
                f"{gguf}: is not the model of the prompt, {prefix.backbone.name}: keys and values "
                f"of the same text differ by {apart:.0%}; give a GGUF of that model"
            )
        fill(state, layout, [prefix.layers[n] for n in places], order)
        return write_whole(path, [head, bytes(state)])

    def notes(self, prompt: Prompt, rows: Sequence[Row]) -> Sequence[str]:
        """Say how a server restores it, and from where on a sliding window hides the prompt."""
        prefix = _prefix(prompt)
        whole = "" if prefix.backbone.window is None else " --swa-full"  # or it keeps no prompt
        kind = self.cache_type
        said = (
            f"next: llama-server -m {shlex.quote(str(self.gguf))} --slot-save-path FOLDER "
            f"-fa {self.flash_attention} -ctk {kind} -ctv {kind}{whole}, and docs/runtimes.md"
        )
        hidden = past_window(prompt, prefix, rows)
        return [said] if hidden is None else [said, hidden]

    def verify(self, prompt: Prompt, path: Path, rows: Sequence[Row]) -> Verified | NotVerified:
        """Load the file into a fresh context of the library, and answer rows there."""
        library = _library()
        room = prompt.task.max_length + 512
        llama = self._open(library, self._file(), len(tokens_of(path)) + room)
        reader = LlamaReader(library, llama, path)
        return compare(prompt, rows, reader, f"llama.cpp {version('llama-cpp-python')}")

    def _file(self) -> Path:
        if self.gguf is None:
            raise UserError("a state of llama.cpp is for one GGUF file; give `gguf`")
        gguf = Path(self.gguf).expanduser()
        if not gguf.is_file():
            raise UserError(f"{gguf}: no such file; give the GGUF that llama.cpp runs")
        return gguf

    def _open(self, library: Any, gguf: Path, size: int) -> Any:
        """Open a GGUF with room for ``size`` tokens; raises UserError where it cannot be."""
        kind = {"f16": library.GGML_TYPE_F16, "f32": library.GGML_TYPE_F32}[self.cache_type]
        threads = torch.get_num_threads()
        try:
            return library.Llama(
                str(gguf),
                n_ctx=size,
                n_batch=512,
                n_threads=threads,
                n_threads_batch=threads,
                flash_attn=self.flash_attention == "on",
                type_k=kind,
                type_v=kind,
                verbose=False,
            )
        except (ValueError, AssertionError, RuntimeError) as error:
            raise UserError(f"{gguf}: llama.cpp cannot open it ({error})") from None


def _library() -> Any:
    try:
        return importlib.import_module("llama_cpp")
    except ImportError:
        raise UserError(
            "llama-cpp-python is not installed, and a file for llama.cpp is written by it; "
            "`pip install llama-cpp-python` builds it (minutes, with a C++ compiler)"
        ) from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"llama-cpp-python is installed and cannot be loaded ({error})") from None


def _prefix(prompt: Prompt) -> Prefix:
    return prefix_of(prompt, "llama.cpp", INSTEAD)


def _plain(kv: KV) -> KV:
    return KV(kv.keys.detach().cpu().float(), kv.values.detach().cpu().float())


def placeholders(prefix: Prefix, vocabulary: int) -> list[int]:
    """Return the tokens that stand for the positions of a prefix.

    They are drawn by its numbers: a server tells two prompts apart by their tokens alone.
    """
    digest = hashlib.sha256()
    for kv in prefix.layers:
        digest.update(kv.keys.numpy().tobytes() + kv.values.numpy().tobytes())
    known = prefix.backbone
    special = {*known.text.tokenizer.all_special_ids, *known.ends}
    plain = [n for n in range(min(vocabulary, known.vocabulary)) if n not in special]
    draws = random.Random(digest.digest())
    return [draws.choice(plain) for _ in range(prefix.length)]


def _check_sizes(library: Any, llama: Any, gguf: Path, prefix: Prefix) -> None:
    """Raise UserError for a GGUF of a model of another size."""
    model = llama.model
    theirs = {
        "layers": library.llama_model_n_layer(model),
        "numbers a state": library.llama_model_n_embd(model),
        "key-value heads": library.llama_model_n_head_kv(model),
    }
    backbone: Backbone = prefix.backbone
    ours = {
        "layers": len(prefix.sites),
        "numbers a state": backbone.width,
        "key-value heads": prefix.sites[0].heads,
    }
    for what, count in ours.items():
        if theirs[what] != count:
            raise UserError(
                f"{gguf}: is not the model of the prompt, {backbone.name}: it has {theirs[what]} "
                f"{what}, and that one {count}; give a GGUF of that model"
            )


def _saved(library: Any, llama: Any, ids: Sequence[int]) -> tuple[bytes, bytearray]:
    """Let llama.cpp save its only sequence; return what stands before its state there, and that."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sequence"
        held = (library.llama_token * len(ids))(*ids)
        if not library.llama_state_seq_save_file(llama.ctx, str(file).encode(), 0, held, len(ids)):
            raise UserError(f"{folder}: llama.cpp cannot save its state there; free some space")
        content = file.read_bytes()
    size = HEAD + 4 * len(ids)
    return content[:size], bytearray(content[size:])


def _places(prefix: Prefix, layout: Layout, gguf: Path) -> list[int]:
    """Return which of a prefix's layers each of a state's is; raises UserError for others."""
    every = range(len(prefix.sites))
    places = list(every)
    if len(layout.caches) == 2:
        full = [n for n in every if prefix.sites[n].window is None]
        places = [*full, *(n for n in every if prefix.sites[n].window is not None)]
        fits = layout.caches[0] == len(full)
    else:
        fits = len(layout.caches) == 1
    sizes = [(b.width, v.width) for b, v in zip(layout.keys, layout.values, strict=True)]
    sites = [prefix.sites[n] for n in places]
    if not fits or sizes != [(s.heads * s.key_width, s.heads * s.value_width) for s in sites]:
        raise UserError(
            f"{gguf}: llama.cpp keeps keys and values of {len(sizes)} layers for it, and the "
            f"prompt has those of {len(sites)}, or of other sizes; give a GGUF of its model"
        )
    return places


def tokens_of(path: Path) -> list[int]:
    """Return the placeholders that a file begins with; raises UserError for another file."""
    content = path.read_bytes()
    count = struct.unpack_from("<I", content, 8)[0] if len(content) >= HEAD else 0
    if not 0 < count <= (len(content) - HEAD) // 4:
        raise UserError(f"{path}: is no saved sequence of llama.cpp")
    return list(struct.unpack_from(f"<{count}i", content, HEAD))


class LlamaReader(Reader):
    """A context of llama.cpp that has loaded a prompt."""

    def __init__(self, library: Any, llama: Any, path: Path) -> None:
        super().__init__()
        self._library, self._llama = library, llama
        tokens = tokens_of(path)
        held = (library.llama_token * len(tokens))()
        count = ctypes.c_size_t()
        read = library.llama_state_seq_load_file(
            llama.ctx, str(path).encode(), 0, held, len(tokens), ctypes.byref(count)
        )
        if not read:
            raise UserError(f"{path}: llama.cpp cannot load it again; give the same GGUF")
        self._length = len(tokens)
        llama.input_ids[: self._length] = tokens
        llama.n_tokens = self._length

    def forget(self, kept: int) -> None:
        """Go on from behind the first ``kept`` tokens; what follows them is overwritten."""
        self._llama.n_tokens = self._length + kept

    def go_on(self, ids: list[int]) -> Tensor:
        """Read on, and return the scores of the next token."""
        self._llama.eval(ids)
        scores = self._library.llama_get_logits_ith(self._llama.ctx, -1)
        held = np.ctypeslib.as_array(scores, shape=(self._llama.n_vocab(),))
        return torch.from_numpy(held.copy())
