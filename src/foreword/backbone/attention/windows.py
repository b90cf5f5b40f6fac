"""Windows: how far attention reaches, noted on the masks that a model makes while it is probed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from transformers.masking_utils import sdpa_mask

WINDOW = "foreword_window"
"""The attribute of a mask that holds its window in tokens, None without."""

_WINDOWS: ContextVar[tuple[int | None, ...]] = ContextVar("windows", default=())
"""The windows of all masks that a probing pass has made."""


def mask_with_window(*args: Any, **kwargs: Any) -> Tensor | None:
    """Make a mask also where none would be needed, and note its window on it.

    Some models tell the window to the mask alone (Qwen2-MoE, Phi-MoE), and a window may be longer
    than any text that it is tried on.
    """
    skip = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask = sdpa_mask(*args, **{**kwargs, **skip})
    _WINDOWS.set((*_WINDOWS.get(), kwargs.get("local_size")))
    if mask is not None:
        setattr(mask, WINDOW, kwargs.get("local_size"))
    return mask


def window_of(mask: Tensor | None) -> int | None:
    """Return the window that a mask was made for; None for full attention.

    A mask that the model made of another (Doge) has the shortest window of all masks of this pass.
    """
    if mask is None or hasattr(mask, WINDOW):
        return getattr(mask, WINDOW, None)
    return min((window for window in _WINDOWS.get() if window is not None), default=None)


@contextmanager
def noting_windows() -> Iterator[None]:
    """Note the windows of the masks that are made, and forget them at the end."""
    token = _WINDOWS.set(())
    try:
        yield
    finally:
        _WINDOWS.reset(token)
