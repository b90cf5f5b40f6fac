"""The language of texts: as a code, or seen from their script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from foreword.errors import UserError
from foreword.metrics.words import CJK, KANA

ROWS = 100
"""Rows by whose texts a language is found."""

SHARE = 0.3
"""The share of letters beyond which a text is one of Chinese or Japanese."""


def code(language: str) -> str:
    """Return a language's own part of its code, ``zh`` of ``zh-Hans``.

    Raises UserError for what is no such code (BCP 47), such as a language's name.
    """
    first, *rest = re.split("[-_]", language.lower())
    if not re.fullmatch("[a-z]{2,3}", first) or not all(map(str.isalnum, rest)):
        raise UserError(f"`language={language}`: give a language code, such as en, de or zh")
    return first


def language_of(text: str) -> str | None:
    """Return "zh" or "ja" where more than 30% of the letters are Han or kana, else None.

    Japanese is what has more than 10% kana among these. The other scripts tell no language.

    >>> language_of("我想退货"), language_of("返品したい"), language_of("a refund, 谢谢")
    ('zh', 'ja', None)
    """
    signs = len(CJK.findall(text))
    if signs <= SHARE * sum(map(str.isalpha, text)):
        return None
    return "ja" if len(re.findall(f"[{KANA}]", text)) > 0.1 * signs else "zh"


def language_of_fields(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the language of the texts in some rows' fields, as `language_of` has it."""
    return language_of("".join(text for row in rows for text in _texts(row)))


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a field; of the turns of a conversation what is said."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if name != "role":
                yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
