"""When two rows say the same: texts compared without case, spacing and punctuation.

Signs by which texts mean something else stay: those of numbers (``-3``, ``1.5``, ``5%``), of
formulas (``2*x``, ``!=``), of moods (``:)``), and all symbols, such as emoji and currencies.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foreword.data.row import Row

Key = tuple[str, ...]

MARK = 5
"""Bytes by which a text is known again."""


_DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe63-"
_ALIKE = {
    **{wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
    **dict.fromkeys(range(0xFE00, 0xFE10)),  # how an emoji is drawn
    **dict.fromkeys(map(ord, "\u066a\ufe6a"), "%"),
}

_MEANS = re.compile(
    rf"""(?=[\W_])(?:                                  # no letter begins any of these
    (?<=\d)[\W_]+(?=\d)                              # 1.5, 12:30, 3-5, and 1 2 that is not 12
    | (?<![\w{_DASHES}])[{_DASHES}](?=[^\w\s]?[^\w\s]?\d)  # -3, -.5, -$3
    | (?<![\w.])[.](?=\d)                            # .5
    | (?<=\d)[*/](?=\w) | (?<=\w)[*/](?=\d)          # 2*x, x/2
    | [%\u2030\u2031]
    | (?<=\w)\#(?!\w)                               # C#
    | !(?==) | (?<!\w)!(?=\w)                       # a != b, !a
    | [:;=][-'^]?(?:[][)(|\\]|/(?!/)|[dpo](?!\w)) | </(?=3)
    )""",
    re.VERBOSE,
)
"""Punctuation that tells one text from another, in a text without capitals."""


@functools.lru_cache(maxsize=2**16)
def same_text(text: str) -> str:
    """Reduce a text to what makes it another text: no case, spacing, punctuation or controls.

    A text of nothing but punctuation stays as it is, so that "?" and "!" differ.

    >>> same_text("It's  GOOD!") == same_text("its good")
    True
    >>> same_text("It is -3.5 degrees") == same_text("It is 35 degrees")
    False
    """
    folded = unicodedata.normalize("NFC", text).casefold().translate(_ALIKE)
    kept, at = "", 0
    for match in _MEANS.finditer(folded):
        kept += _telling(folded[at : match.start()]) + _signs(match[0])
        at = match.end()
    return kept + _telling(folded[at:]) or text.strip()


def _telling(text: str) -> str:
    """Leave out spaces, punctuation and controls."""
    return re.sub(r"[\W_]", lambda sign: sign[0] if _tells(sign[0]) else "", "".join(text.split()))


def _signs(piece: str) -> str:
    """Return the signs of a piece that means something, in one spelling; a space if it is one."""
    shown = "".join(sign for sign in piece if sign.isprintable() and not sign.isspace())
    one = "".join("-" if sign in _DASHES else sign for sign in shown)
    return one or (" " if any(map(str.isspace, piece)) else "")


def key_of(row: Row, fields: Iterable[str]) -> Key:
    """Return what is equal for rows whose fields say the same; a field that is absent is empty."""
    return tuple(same_text(_text(row.fields.get(name))) for name in fields)


def overlap(rows: Sequence[Row], known: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    """Return the rows of which all fields say the same as those of a known row."""
    keys = {key_of(row, fields) for row in known}
    return [row for row in rows if key_of(row, fields) in keys]


def marks(rows: Sequence[Row], fields: Sequence[str]) -> str:
    """Return what tells later which texts rows had, and not the texts: base64 of 40 bits for each.

    Two rows that differ have the same mark with a chance of 2**-40.
    """
    found = sorted({_mark(row, fields) for row in rows})
    return base64.b64encode(b"".join(found)).decode()


def marked(rows: Sequence[Row], fields: Sequence[str], known: str) -> int:
    """Count the rows of which all fields say the same as those of a row of these ``marks``."""
    return len(with_marks(rows, fields, known))


def with_marks(rows: Sequence[Row], fields: Sequence[str], known: str) -> list[Row]:
    """Return the rows of which all fields say the same as those of a row of these ``marks``."""
    held = base64.b64decode(known)
    among = {held[at : at + MARK] for at in range(0, len(held), MARK)}
    return [row for row in rows if _mark(row, fields) in among]


def joined_marks(known: str, rows: Sequence[Row], fields: Sequence[str]) -> str:
    """Return ``marks`` of rows together with those that are known."""
    held = base64.b64decode(known)
    among = {held[at : at + MARK] for at in range(0, len(held), MARK)}
    found = sorted(among | {_mark(row, fields) for row in rows})
    return base64.b64encode(b"".join(found)).decode()


def _mark(row: Row, fields: Sequence[str]) -> bytes:
    return hashlib.sha256(json.dumps(key_of(row, fields)).encode()).digest()[:MARK]


def _text(value: Any) -> str:
    """Return a field as text; of a conversation all that is said before the last turn."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        value = value[:-1] if len(value) > 1 else value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


@functools.lru_cache(maxsize=2**16)
def _tells(sign: str) -> bool:
    return unicodedata.category(sign)[0] not in "PZC"
