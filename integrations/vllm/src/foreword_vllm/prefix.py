"""Files that ``foreword export --to vllm`` writes: keys and values by layer, and what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from foreword_vllm.errors import PromptError

KEY = "foreword-vllm"
"""The key of the file's metadata, which is JSON."""

FORMAT = 1

MODEL = ("layers", "heads", "key_width", "value_width", "vocabulary")
"""The sizes of a model that a prefix must have too."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Prefix:
    """What a file says of a prompt beside its tensors, checked."""

    sha256: str
    positions: int
    model: Mapping[str, Any]
    row: Mapping[str, Any]
    answer: Mapping[str, Any]
    probe: Mapping[str, Any]
    task: str

    @cached_property
    def ids(self) -> list[int]:
        """The token ids that stand for the prefix in a request.

        They follow from the tensors, so that vLLM's cache of prefixes keeps two prompts apart.
        """
        whole = self.sha256.encode()
        digests = (hashlib.sha256(whole + str(n).encode()) for n in range(self.positions))
        size = self.model["vocabulary"]
        return [int.from_bytes(each.digest()[:8], "big") % size for each in digests]


def digest(tensors: Mapping[str, Array]) -> str:
    """Return the SHA-256 of tensors, by name, shape and bytes, as 64 hex digits."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name}{tensors[name].shape}".encode())
        found.update(np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()


def read_prefix(path: Path) -> tuple[Prefix, dict[str, Array]]:
    """Read and check a file: what it says, and ``layers.N.keys`` and ``.values``, (P, H, D).

    Raises PromptError for what is no such file, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise PromptError("is no file of `foreword export --to vllm`")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise PromptError(f"cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise PromptError(f"is damaged ({error})") from None
    try:
        meta = json.loads(text)
        if meta["format"] != FORMAT:
            raise PromptError(
                f"has format {meta['format']}, and this foreword-vllm reads {FORMAT}; install the "
                "one of the Foreword that wrote it"
            )
        prefix = Prefix(**{name: meta[name] for name in Prefix.__dataclass_fields__})
        _check(prefix, tensors)
    except PromptError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PromptError(f"is damaged ({type(error).__name__} in its metadata)") from None
    return prefix, tensors


def _check(prefix: Prefix, tensors: Mapping[str, Array]) -> None:
    """Raise PromptError where the tensors are not those that the metadata speaks of."""
    count, heads, keys, values, vocabulary = (prefix.model[name] for name in MODEL)
    for size in (prefix.positions, count, heads, keys, values, vocabulary):
        if type(size) is not int or not 0 < size < 2**31:
            raise PromptError(f"is damaged (a size of {size!r})")
    wanted = {
        f"layers.{layer}.{kind}": (prefix.positions, heads, width)
        for layer in range(count)
        for kind, width in (("keys", keys), ("values", values))
    }
    if tensors.keys() != wanted.keys():
        raise PromptError(f"is damaged ({len(tensors)} tensors, not {len(wanted)})")
    for name, shape in wanted.items():
        if tensors[name].shape != shape or tensors[name].dtype != np.float32:
            raise PromptError(f"is damaged ('{name}' is {tensors[name].shape}, not {shape})")
        if not np.isfinite(tensors[name]).all():
            raise PromptError(f"is damaged ('{name}' holds NaN or Inf)")
    if digest(tensors) != prefix.sha256:
        raise PromptError("is damaged (its tensors are not those that it names)")
    if prefix.answer["kind"] not in ("labels", "text"):
        raise PromptError("is damaged (an unknown kind of answer)")
