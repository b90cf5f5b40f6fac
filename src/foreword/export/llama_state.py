"""The state of a sequence as llama.cpp keeps it, and keys and values put in its place."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreword.injection import KV

NUMBERS: dict[int, Any] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
"""By ggml's number of a type: float32 and float16."""


class UnknownLayoutError(Exception):
    """A state that is not laid out as is known here."""


@dataclass(frozen=True)
class Block:
    """The keys, or the values, of one layer: ``cells`` rows of ``width`` numbers, or transposed."""

    start: int  # in bytes
    dtype: Any
    cells: int
    width: int
    transposed: bool = False

    @property
    def size(self) -> int:
        """The number of bytes."""
        return int(self.cells * self.width * self.dtype.itemsize)

    def read(self, state: bytes | bytearray) -> Tensor:
        """Return the numbers: (cells, width)."""
        found = np.frombuffer(state, self.dtype, self.cells * self.width, self.start)
        table = torch.from_numpy(found.astype(np.float32))
        if self.transposed:
            return table.view(self.width, self.cells).T
        return table.view(self.cells, self.width)

    def write(self, state: bytearray, table: Tensor) -> None:
        """Put (cells, width) numbers in its place."""
        table = table.T if self.transposed else table
        content = table.contiguous().numpy().astype(self.dtype).tobytes()
        state[self.start : self.start + self.size] = content


@dataclass(frozen=True)
class Layout:
    """Where a state has the keys and values of each layer.

    ``caches`` counts the layers of each cache, in the order of the state: a model with sliding
    windows keeps the layers of full attention in the first, and the others in the second.
    """

    keys: Sequence[Block]
    values: Sequence[Block]
    caches: Sequence[int]

    @staticmethod
    def of(state: bytes | bytearray, cells: int) -> Layout:
        """Read a state of one sequence of ``cells`` tokens.

        Raises UnknownLayoutError for what is laid out otherwise, quantized caches among them.
        """
        return _Parser(state, cells).layout()


class _Parser:
    def __init__(self, state: bytes | bytearray, cells: int) -> None:
        self._state, self._cells, self._at = state, cells, 0

    def layout(self) -> Layout:
        keys: list[Block] = []
        values: list[Block] = []
        caches: list[int] = []
        try:
            while self._at < len(self._state):
                caches.append(self._cache(keys, values))
        except (struct.error, KeyError):
            raise UnknownLayoutError from None
        if self._at != len(self._state):
            raise UnknownLayoutError
        return Layout(keys, values, caches)

    def _cache(self, keys: list[Block], values: list[Block]) -> int:
        (streams, cells) = self._take("<II")
        if streams != 1 or cells != self._cells:
            raise UnknownLayoutError
        for cell in range(cells):
            position, sequences, _ = self._take("<iIi")
            if position != cell or sequences != 1:
                raise UnknownLayoutError
        transposed, layers = self._take("<II")
        keys += [self._rows() for _ in range(layers)]
        values += [self._columns() if transposed else self._rows() for _ in range(layers)]
        return int(layers)

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._state, self._at)
        self._at += struct.calcsize(form)
        return found

    def _rows(self) -> Block:
        kind, row = self._take("<iQ")
        dtype = NUMBERS[kind]
        return self._block(Block(self._at, dtype, self._cells, row // dtype.itemsize))

    def _columns(self) -> Block:
        kind, _, width = self._take("<iII")
        return self._block(Block(self._at, NUMBERS[kind], self._cells, width, transposed=True))

    def _block(self, block: Block) -> Block:
        self._at += block.size
        return block


Order = Callable[[Tensor], Tensor]


def in_halves(keys: Tensor) -> Tensor:
    """Leave keys as transformers has them: number i of a head turns with number i + D/2."""
    return keys


def in_pairs(keys: Tensor) -> Tensor:
    """Put side by side the numbers that turn together: those of a GGUF of the Llama kind."""
    heads, cells, width = keys.shape
    return keys.view(heads, cells, 2, width // 2).transpose(2, 3).reshape(heads, cells, width)


ORDERS: Sequence[Order] = (in_halves, in_pairs)


def table_of(tensor: Tensor) -> Tensor:
    """Lay the heads of a token side by side: (H, n, D) -> (n, H D)."""
    return tensor.transpose(0, 1).flatten(1)


def difference(
    state: bytes | bytearray, layout: Layout, layers: Sequence[KV], order: Order
) -> float:
    """Return how far a state is from keys and values of its first tokens, in the worst layer.

    It is the norm of the difference over that of the values.
    """
    worst = 0.0
    for kv, keys, values in zip(layers, layout.keys, layout.values, strict=True):
        for own, block in ((order(kv.keys), keys), (kv.values, values)):
            ours = table_of(own)
            apart = (block.read(state)[: len(ours)] - ours).norm() / ours.norm()
            worst = max(worst, float(apart))
    return worst


def fill(state: bytearray, layout: Layout, layers: Sequence[KV], order: Order) -> None:
    """Put keys and values in the place of those that a state has."""
    for kv, keys, values in zip(layers, layout.keys, layout.values, strict=True):
        keys.write(state, table_of(order(kv.keys)))
        values.write(state, table_of(kv.values))
