"""When two rows say the same: texts compared without case, spacing and punctuation."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foreword.data.row import Row

Key = tuple[str, ...]

TARGETS = ("label", "labels", "tags", "completion", "output", "references", "answer", "answers")
"""Fields that hold answers, unless it is said which fields are read."""


MARK = 5
"""Bytes by which a text is known again."""


def same_text(text: str) -> str:
    """Reduce a text to what makes it another text: no case, spacing, punctuation or controls.

    A text of nothing but punctuation stays as it is, so that "?" and "!" differ.

    >>> same_text("It's  GOOD!") == same_text("its good")
    True
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(filter(_tells, folded)) or text.strip()


def inputs_of(row: Row, label_field: str = "label") -> tuple[str, ...]:
    """Name the fields of a row that are read: all but those that hold its answer."""
    return tuple(name for name in row.fields if name not in (*TARGETS, label_field))


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
    held = base64.b64decode(known)
    among = {held[at : at + MARK] for at in range(0, len(held), MARK)}
    return sum(_mark(row, fields) in among for row in rows)


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
