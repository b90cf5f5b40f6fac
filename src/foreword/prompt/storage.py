"""How the numbers of a prompt file are kept: float32, or in half or a quarter of the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from foreword.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Store = Literal["float32", "float16", "int8"]

SCALE = ":scale"
"""What follows a tensor's name in that of its scales."""

MOST = 127
"""The largest number of eight bits with a sign, and its like below zero."""


def pack(tensors: Mapping[str, Tensor], store: Store) -> dict[str, Tensor]:
    """Return tensors as a file keeps them, by their names there.

    With "int8" a tensor of two dimensions or more, (..., n), is kept as whole numbers from -127 to
    127 with a scale for each vector of n numbers, (..., 1); others stay float32. Raises UserError
    for numbers that float16 cannot hold.
    """
    import torch

    if store not in get_args(Store):
        known = get_args(Store)
        raise UserError(f"`store={store}`: no such type of numbers; {nearest(store, known)}")
    held = {name: t.detach().to("cpu", torch.float32).contiguous() for name, t in tensors.items()}
    if store == "float32":
        return held
    if store == "float16":
        most = torch.finfo(torch.float16).max
        for name, tensor in held.items():
            if tensor.numel() and float(tensor.abs().max()) > most:
                raise UserError(
                    f"'{name}' holds numbers beyond {most:,.0f}, which float16 cannot; "
                    "use `store=int8` or float32"
                )
        return {name: tensor.to(torch.float16) for name, tensor in held.items()}
    packed: dict[str, Tensor] = {}
    for name, tensor in held.items():
        if tensor.dim() < 2 or not tensor.numel():
            packed[name] = tensor
            continue
        scale = tensor.abs().amax(-1, keepdim=True) / MOST
        whole = torch.where(scale > 0, tensor / scale, 0).round().clamp(-MOST, MOST)
        packed[name], packed[name + SCALE] = whole.to(torch.int8), scale
    return packed


def unpack(where: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of a file as float32, by their own names; others stay as they are.

    Raises UserError for scales that do not belong to whole numbers of eight bits.
    """
    scales = {name for name in arrays if name.endswith(SCALE) and name[: -len(SCALE)] in arrays}
    return {
        name: _as_float32(where, name, array, arrays.get(name + SCALE))
        for name, array in arrays.items()
        if name not in scales
    }


def _as_float32(where: str, name: str, array: Any, scale: Any | None) -> Any:
    if scale is None:
        return array.astype(np.float32) if array.dtype == np.float16 else array
    if array.dtype != np.int8 or scale.dtype != np.float32:
        raise UserError(f"{where}: tensor '{name + SCALE}' is no scale of '{name}'")
    if scale.shape != (*array.shape[:-1], 1):
        raise UserError(
            f"{where}: tensor '{name + SCALE}' has shape {scale.shape}, and '{name}' {array.shape}"
        )
    with np.errstate(all="ignore"):  # a scale of NaN or Inf is refused with the tensor
        return array.astype(np.float32) * scale
