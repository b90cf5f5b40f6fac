"""Windows: a text that is too long for one pass, in parts that overlap."""

from __future__ import annotations

from foreword.backbone.tokenizer import Text


def windows(text: Text, whole: str, size: int, stride: int) -> list[str]:
    """Part a text into windows of up to ``size`` tokens, each ``stride`` after the one before.

    Every run of up to ``size - stride`` tokens stands whole in one of them. A text that fits is
    its own window. ``stride`` is from 1 to ``size``.
    """
    ids = text.ids(whole)
    if len(ids) <= size:
        return [whole]
    starts = range(0, len(ids) - size + stride, stride)
    # a character whose bytes a cut has parted decodes to the replacement sign
    return [text.decode(ids[start : start + size]).strip("\ufffd") for start in starts]
