"""Windows: overlapping parts of a text that is too long for one pass."""

from __future__ import annotations

from foreword.backbone.tokenizer import Text


def windows(text: Text, whole: str, size: int, stride: int) -> list[str]:
    """Split a text into windows of up to ``size`` tokens, each ``stride`` after the previous one.

    Every run of up to ``size - stride`` tokens is whole in one of them. A text that fits is one
    window. ``stride`` is from 1 to ``size``.
    """
    ids = text.ids(whole)
    if len(ids) <= size:
        return [whole]
    starts = range(0, len(ids) - size + stride, stride)
    return [text.part(whole, start, start + size) for start in starts]
