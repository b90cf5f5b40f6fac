"""A GGUF file's tensors, written as float32 safetensors one at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from foreword.backbone.load.gguf_header import Header, StoredTensor
from foreword.backbone.load.quiet import one_line_errors
from foreword.errors import UserError

_AT_ONCE = 1 << 18  # values; what is computed from so many stays in a core's cache
_ALIGNMENT = 64


def write_weights(
    header: Header,
    config: Mapping[str, Any],
    outline: PreTrainedModel,
    path: Path,
    move: Callable[[int], object],
) -> set[str]:
    """Write the weights of a GGUF file as the safetensors of the model that `outline` is.

    Each tensor is unpacked, changed as transformers changes it (`config` is what it reads of the
    file) and written before the next is read. `move` hears of the values that are done.
    Returns the names of the tensors for which the model has no place.

    Raises:
        UserError: a tensor is of a type that is not read, or a parameter of the model is missing.
    """
    kind: Any = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    processor = kind(config=dict(config))
    name_tensors: Any = get_gguf_hf_weights_map
    names = name_tensors(outline, processor)
    shapes = _shapes(outline, {names[each.name] for each in header.tensors if each.name in names})
    unused = set()
    with WeightsFile(path, shapes) as weights:
        for stored, values in _unpacked(header):
            with one_line_errors(str(header.path)):
                result = processor.process(
                    weights=values,
                    name=stored.name,
                    tensor_key_mapping=names,
                    parsed_parameters={"tensors": weights},
                )
                if result.name in names:
                    weights[names[result.name]] = torch.from_numpy(result.weights)
                elif result.name is not None:  # else the processor has put it in its place
                    unused.add(stored.name)
            move(values.size)
        if weights.missing:
            raise UserError(
                f"cannot load '{header.path}': it lacks the tensor of {min(weights.missing)}"
            )
    return unused


def _shapes(outline: PreTrainedModel, stored: set[str]) -> dict[str, tuple[int, ...]]:
    """Return what is written: every parameter once, and the buffers that the file has."""
    parameters = dict(outline.named_parameters())  # of tied ones the first
    buffers = {name: each for name, each in outline.named_buffers() if name in stored}
    return {name: tuple(each.shape) for name, each in (parameters | buffers).items()}


def _unpacked(header: Header) -> Iterator[tuple[StoredTensor, np.ndarray[Any, np.dtype[Any]]]]:
    with header.path.open("rb") as file:
        for stored in header.tensors:
            file.seek(stored.start)
            try:
                yield stored, unpack(file.read(stored.size), stored)
            except NotImplementedError as error:
                raise UserError(
                    f"cannot load '{header.path}': {stored.name} is of type {stored.kind.name}, "
                    "which is not read"
                ) from error


def unpack(content: bytes, stored: StoredTensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a tensor's values in float32, from the bytes that hold them."""
    values, size = gguf.GGML_QUANT_SIZES[stored.kind]
    data = np.frombuffer(content, np.uint8).reshape(-1, size)
    found = np.empty((len(data), values), np.float32)
    step = max(1, _AT_ONCE // values)
    for first in range(0, len(data), step):
        part = data[first : first + step].reshape(1, -1)  # in one row, which is taken at once
        found[first : first + step] = gguf.dequantize(part, stored.kind).reshape(-1, values)
    return found.reshape(stored.shape)


class WeightsFile(dict[str, Tensor]):
    """A safetensors file of zeros, whose tensors are those of a dictionary.

    A tensor that is set is written; one that is got is a view of the file. Names that the file
    does not have, such as those of tied tensors, may be set and are not written.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path = path
        self.shapes = shapes
        self.missing = set(shapes)
        self.start, self.places, self.size = self._laid_out()

    def __enter__(self) -> WeightsFile:
        if shutil.disk_usage(self.path.parent).free < self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file = self.path.open("w+b")
        self.file.write(self.start)
        self.file.truncate(self.size)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __getitem__(self, name: str) -> Tensor:
        self.missing.discard(name)
        place, shape = self.places[name], self.shapes[name]
        return torch.from_numpy(np.memmap(self.path, np.float32, "r+", place, shape))

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        if name not in self.shapes:
            return
        if tuple(tensor.shape) != self.shapes[name]:
            shapes = f"{list(tensor.shape)} in the file and {list(self.shapes[name])} by its header"
            raise ValueError(f"{name} is {shapes}")
        self.missing.discard(name)
        self.file.seek(self.places[name])
        self.file.write(np.ascontiguousarray(tensor.numpy(), np.float32).data.cast("B"))

    def _laid_out(self) -> tuple[bytes, dict[str, int], int]:
        """Return the bytes in front of the tensors, the place of each, and the file's size.

        Tensors whose size is a multiple of the alignment come first, so that they are aligned.
        """
        sizes = {name: 4 * prod(shape) for name, shape in self.shapes.items()}
        order = sorted(sizes, key=lambda name: (sizes[name] % _ALIGNMENT > 0, name))
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        places, end = {}, 0
        for name in order:
            places[name], end = end, end + sizes[name]
            entries[name] = {
                "dtype": "F32",
                "shape": list(self.shapes[name]),
                "data_offsets": [places[name], end],
            }
        text = json.dumps(entries).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        start = len(text).to_bytes(8, "little") + text
        return start, {name: len(start) + place for name, place in places.items()}, len(start) + end
