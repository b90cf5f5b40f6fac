"""Bytes of a file as text: UTF-8, UTF-16 by its mark, Excel's of Western Europe, or as is said."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from foreword.errors import UserError, nearest

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

LIKELY = (
    *("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1252", "cp1251", "cp1250", "cp1253"),
    *("cp1254", "cp1255", "cp1256", "koi8_r"),
)
"""The encodings that are looked for where a file is not UTF-8."""

_LOOKED_AT = 1 << 16
_FEWEST = 6  # bytes beyond ASCII that an encoding is told by


def parse_encoding(word: str) -> str:
    """Return an encoding's name as Python has it; raises UserError for an unknown one."""
    try:
        "".encode(word)  # refuses codecs that give no text, such as base64
        return codecs.lookup(word).name
    except (LookupError, ValueError):
        hint = nearest(word.lower(), ["utf-8", "utf-16", *LIKELY])
        raise UserError(f"`encoding={word}`: there is no such encoding; {hint}") from None


def decode(
    data: bytes, name: str, *, western: bool = False, given: str | None = None
) -> tuple[str, str]:
    """Return the text of a file's bytes, without a byte order mark, and the encoding.

    The encoding is the one that is ``given``, else UTF-8, or UTF-16 by its mark. With ``western``,
    bytes that are neither may be Windows-1252, if that gives a likely text. Raises UserError, which
    calls the file ``name`` and names the likely encoding, for other bytes and for an empty file.
    """
    mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
    mark = mark if given in (None, MARKS.get(mark)) else b""
    encoding = given or MARKS.get(mark, "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[len(mark) :], final=True)
    except UnicodeDecodeError as error:
        likely = _windows_1252(data) if western and not mark and given is None else None
        if likely is None:
            place = len(mark) + error.start
            line = data.count(b"\n", 0, place) + 1
            found = None if mark or given is not None else likely_encoding(data, place)
            raise UserError(
                f"{name}:{line}: not {encoding.upper()} (byte {place} of the file is "
                f"0x{data[place]:02x}{f'; it is probably {found.upper()}' if found else ''}); "
                f"{f'give `encoding={found}`, or ' if found else ''}"
                f"save as UTF-8{', in Excel as CSV UTF-8' if western else ''}"
            ) from None
        text, encoding = likely, "windows-1252"
    except UnicodeError as error:  # which tells no place
        ordered = f"give `encoding={encoding}-le`, or " if encoding in ("utf-16", "utf-32") else ""
        raise UserError(
            f"{name}: not {encoding.upper()} ({error}); {ordered}save as UTF-8"
        ) from None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{name}: the file is empty; write at least one row")
    return text, encoding


def likely_encoding(data: bytes, place: int) -> str | None:
    """Name the encoding of bytes that are no UTF-8 from ``place`` on; None where none is likely."""
    start = data.rfind(b"\n", 0, max(0, place - _LOOKED_AT // 2)) + 1
    part = data[start : start + _LOOKED_AT]
    part = part[: part.rfind(b"\n") + 1] or part
    beyond, wrong = sum(byte > 0x7F for byte in part), part.decode("utf-8", "replace")
    if beyond < _FEWEST or 4 * wrong.count("\ufffd") < beyond:  # mostly UTF-8, and damaged
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(part, cp_isolation=list(LIKELY)).best()
    return None if best is None else best.encoding


def read_parts(
    path: Path, name: str, *, western: bool = False, given: str | None = None
) -> tuple[Parts, str]:
    """Return what reads the text of a file, and its encoding; a part of it is held.

    The arguments, and what is raised, are those of :func:`decode`.
    """
    mark = b""
    if path.is_file() and given is None:
        with path.open("rb") as file:
            mark = next((mark for mark in MARKS if file.peek(len(mark)).startswith(mark)), b"")
    encoding = given or MARKS.get(mark, "utf-8")

    def parts() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(encoding)()
        with path.open("rb") as file:
            file.seek(len(mark))
            yield decoder.decode(file.read(PART)).removeprefix("\ufeff")
            while data := file.read(PART):
                yield decoder.decode(data)
        yield decoder.decode(b"", final=True)

    try:
        if path.is_file() and sum(bool(part.strip()) for part in parts()):
            return parts, encoding
    except UnicodeError:
        pass
    text, encoding = decode(path.read_bytes(), name, western=western, given=given)
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
