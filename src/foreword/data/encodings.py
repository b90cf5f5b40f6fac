"""Bytes of a file as text: UTF-8, UTF-16 by its mark, and what Excel saves in Western Europe."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from foreword.errors import UserError

Parts: TypeAlias = Callable[[], Iterable[str]]
"""What reads a text in parts, from the beginning at each call."""

PART = 1 << 18
"""Bytes of a file that are read at once."""

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""The byte order marks with which a text may begin, and its encoding."""

WESTERN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿœŒ"
    "€£¥§©®°²³µ½¼¾ªº¿¡«»‘’‚“”„–—…•·´™\u00a0"
)
"""Signs of Western European texts that Windows-1252 has and other encodings seldom show.

A text in another encoding, such as Mac Roman, Windows-1250 or GBK, nearly always has other signs,
or far more of these, when it is read as Windows-1252.
"""

_INSIDE = re.compile("[^\\W\\d_][£¥§«»‚“”„´][^\\W\\d_]")
"""A sign that stands between words, inside a word."""

MOST = 0.2
"""The largest fraction of such signs among the letters of a Western European text."""


def decode(data: bytes, name: str, *, western: bool = False) -> tuple[str, str]:
    """Return the text of a file's bytes, without a byte order mark, and the encoding.

    With ``western``, bytes that are no UTF-8 may be Windows-1252, if that gives a likely text.
    Raises UserError, which calls the file ``name``, for other bytes and for an empty file.
    """
    mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        likely = _windows_1252(data) if western and not mark else None
        if likely is None:
            place = len(mark) + error.start
            line = data.count(b"\n", 0, place) + 1
            raise UserError(
                f"{name}:{line}: not {encoding.upper()} (byte {place} of the file is "
                f"0x{data[place]:02x}); save as UTF-8{', in Excel as CSV UTF-8' if western else ''}"
            ) from None
        text, encoding = likely, "windows-1252"
    if not text.strip():
        raise UserError(f"{name}: the file is empty; write at least one row")
    return text, encoding


def read_parts(path: Path, name: str, *, western: bool = False) -> tuple[Parts, str]:
    """Return what reads the text of a file, and its encoding; of UTF-8 and UTF-16 a part is held.

    The arguments, and what is raised, are those of :func:`decode`.
    """
    mark = b""
    if path.is_file():
        with path.open("rb") as file:
            mark = next((mark for mark in MARKS if file.peek(len(mark)).startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")

    def parts() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(encoding)()
        with path.open("rb") as file:
            file.seek(len(mark))
            while data := file.read(PART):
                yield decoder.decode(data)
        yield decoder.decode(b"", final=True)

    try:
        if path.is_file() and sum(bool(part.strip()) for part in parts()):
            return parts, encoding
    except UnicodeDecodeError:
        pass
    text, encoding = decode(path.read_bytes(), name, western=western)
    return lambda: [text], encoding


def has_mark(data: bytes) -> bool:
    """Tell whether a file begins with a byte order mark, as Excel writes it."""
    return any(data.startswith(mark) for mark in MARKS)


def _windows_1252(data: bytes) -> str | None:
    """Return the bytes as Windows-1252, None where that is no likely text."""
    try:
        text = data.decode("windows-1252")
    except UnicodeDecodeError:
        return None
    beyond = [sign for sign in text if sign > "\x7f"]
    letters = sum(sign.isalpha() for sign in text)
    few = len(beyond) <= max(1, MOST * letters)
    return text if few and WESTERN.issuperset(beyond) and not _INSIDE.search(text) else None
