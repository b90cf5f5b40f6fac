"""States of llama.cpp, as its source writes them: read, filled, and refused where they differ."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from torch import Tensor

from foreword.export.llama_state import (
    Layout,
    UnknownLayoutError,
    difference,
    fill,
    in_halves,
    in_pairs,
)
from foreword.injection import KV
from gguf_files import in_pairs as rows_in_pairs

HEADS, CELLS, WIDTH = 2, 3, 4


def drawn(seed: int) -> KV:
    draw = torch.Generator().manual_seed(seed)
    shape = (HEADS, CELLS, WIDTH)
    return KV(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))


def table(tensor: Tensor) -> np.ndarray:
    """(H, n, D) as rows of tokens: all numbers of the first head, then those of the next."""
    return np.stack([np.concatenate([head[cell] for head in tensor]) for cell in range(CELLS)])


def cache(layers: list[KV], *, transposed: bool, kind: int = 0, position: int = 0) -> bytes:
    """One cache: llama_kv_cache::state_write of llama.cpp."""
    dtype = {0: "<f4", 1: "<f2", 8: "<i1"}[kind]
    out = struct.pack("<II", 1, CELLS)
    out += b"".join(struct.pack("<iIi", position + cell, 1, 0) for cell in range(CELLS))
    out += struct.pack("<II", transposed, len(layers))
    row = HEADS * WIDTH * np.dtype(dtype).itemsize
    for kv in layers:
        out += struct.pack("<iQ", kind, row) + table(kv.keys).astype(dtype).tobytes()
    for kv in layers:
        values = table(kv.values).astype(dtype)
        if transposed:
            out += struct.pack("<iII", kind, np.dtype(dtype).itemsize, HEADS * WIDTH)
            out += np.ascontiguousarray(values.T).tobytes()
        else:
            out += struct.pack("<iQ", kind, row) + values.tobytes()
    return out


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_state_is_filled_as_llama_cpp_would_write_it(transposed: bool, kind: int) -> None:
    before, after = [drawn(0), drawn(1)], [drawn(2), drawn(3)]
    state = bytearray(cache(before, transposed=transposed, kind=kind))
    layout = Layout.of(state, CELLS)
    assert difference(state, layout, before, in_halves) < 1e-3
    assert difference(state, layout, after, in_halves) > 0.5
    fill(state, layout, after, in_halves)
    assert bytes(state) == cache(after, transposed=transposed, kind=kind)


def test_layers_with_a_window_stand_in_a_second_cache() -> None:
    layers = [drawn(n) for n in range(3)]
    state = cache(layers[:1], transposed=False) + cache(layers[1:], transposed=False)
    layout = Layout.of(state, CELLS)
    assert layout.caches == [1, 2]
    assert difference(state, layout, layers, in_halves) == 0


@pytest.mark.parametrize(
    "state",
    [
        cache([drawn(0)], transposed=False) + b"more",
        cache([drawn(0)], transposed=False)[:-1],
        cache([drawn(0)], transposed=False, kind=8),  # quantized
        cache([drawn(0)], transposed=False, position=5),
        struct.pack("<II", 4, CELLS),  # a stream for each of several sequences
    ],
    ids=["longer", "shorter", "quantized", "elsewhere", "streams"],
)
def test_another_layout_is_not_taken_for_this_one(state: bytes) -> None:
    with pytest.raises(UnknownLayoutError):
        Layout.of(state, CELLS)


def test_pairs_are_those_of_the_converter() -> None:
    weight, x = torch.arange(32.0 * 5).view(32, 5), torch.arange(5.0)
    keys = (weight @ x).view(4, 1, 8)
    assert torch.equal(in_pairs(keys).flatten(), rows_in_pairs(weight, 4) @ x)
