"""The header of a GGUF file: what it says of its model, and where its tensors lie."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import gguf

from foreword.errors import UserError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_ALIGNMENT = 32


@dataclass(frozen=True)
class Strings:
    """An array of strings, such as a vocabulary, of which only the length is kept."""

    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file has it: its shape as torch counts, its type, its bytes' place."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """The values (a key's number, text or list, with its type) and the tensors of a file."""

    path: Path
    values: Mapping[str, tuple[Any, int]]
    tensors: tuple[StoredTensor, ...]

    @property
    def architecture(self) -> str:
        """The name that llama.cpp has for the kind of model."""
        return str(self.values["general.architecture"][0])

    @property
    def count(self) -> int:
        """The number of values in all tensors."""
        return sum(prod(each.shape) for each in self.tensors)


def read_header(path: Path) -> Header:
    """Read a file's header, and nothing of its weights.

    Raises:
        UserError: it is no GGUF file, it is cut short, or it is of a form that is not read.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{path} is not a GGUF file (its first bytes are not 'GGUF')")
        length = file.seek(0, 2)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header = _Reader(data).header(path)
            except (struct.error, IndexError) as error:
                raise _cut(path, length) from error
            except (ValueError, UnicodeDecodeError) as error:
                raise UserError(f"cannot load '{path}': its header is damaged ({error})") from error
    end = max((each.start + each.size for each in header.tensors), default=0)
    if end > length:
        raise _cut(path, length, end)
    return header


def _cut(path: Path, length: int, end: int | None = None) -> UserError:
    whole = "its header ends in the middle" if end is None else f"{end:,} bytes belong to it"
    return UserError(
        f"cannot load '{path}': the file is cut short ({length:,} bytes are there, {whole}); "
        "copy or download it again"
    )


class _Reader:
    """Reads one thing after another from the bytes of a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = len(_MAGIC)

    def header(self, path: Path) -> Header:
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            raise UserError(
                f"cannot load '{path}': it is of GGUF version {version}; versions 2 and 3 are read"
            )
        tensors, keys = self._numbers("QQ")
        values = {}
        for _ in range(keys):
            key = self._string()
            (kind,) = self._numbers("I")
            values[key] = self._value(kind)
        (parts, _), (part, _) = (values.get(f"split.{key}", (0, 0)) for key in ("count", "no"))
        if parts > 1:
            raise UserError(
                f"cannot load '{path}': it is part {part + 1} of {parts}; join them with "
                "`llama-gguf-split --merge FIRST_PART WHOLE.gguf` and give the whole"
            )
        if "general.architecture" not in values:
            raise ValueError("it names no architecture")
        entries = [self._entry() for _ in range(tensors)]
        step = int(values.get("general.alignment", (_ALIGNMENT, 4))[0])
        if step < 1:
            raise ValueError(f"its alignment is {step}")
        start = -(-self.place // step) * step
        return Header(path, values, tuple(_stored(start, *entry) for entry in entries))

    def _numbers(self, kinds: str) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{kinds}")
        found = layout.unpack_from(self.data, self.place)
        self.place += layout.size
        return found

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        return str(self._numbers(f"{self._fitting(length)}s")[0], "utf-8")

    def _fitting(self, count: int) -> int:
        """Return a count of things of a byte or more; raise IndexError where so many cannot be."""
        if count > len(self.data) - self.place:
            raise IndexError
        return count

    def _value(self, kind: int) -> tuple[Any, int]:
        if kind in _NUMBERS:
            return self._numbers(_NUMBERS[kind])[0], kind
        if kind == _STRING:
            return self._string(), kind
        if kind != _ARRAY:
            raise ValueError(f"a value is of type {kind}")
        inner, count = self._numbers("IQ")
        if inner in _NUMBERS:
            return list(self._numbers(f"{self._fitting(count)}{_NUMBERS[inner]}")), inner
        if inner != _STRING:
            raise ValueError(f"an array is of type {inner}")
        for _ in range(count):
            (length,) = self._numbers("Q")
            self.place += self._fitting(length)
        return Strings(count), kind

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (count,) = self._numbers("I")
        shape = self._numbers(f"{self._fitting(count)}Q")
        kind, offset = self._numbers("IQ")
        return name, tuple(reversed(shape)), kind, offset


def _stored(start: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> StoredTensor:
    known = gguf.GGMLQuantizationType(kind)  # raises ValueError for another
    values, size = gguf.GGML_QUANT_SIZES[known]
    return StoredTensor(name, shape, known, start + offset, prod(shape) // values * size)
