"""Words as a text has them: with a space in front, in scripts that put spaces between words."""

from __future__ import annotations

import re

UNSPACED = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
"""Scripts that put no space between words, with their punctuation."""


def words_of(name: str) -> str:
    """Turn a label's name into the words a model reads: ``card_not-working`` to its three words.

    CamelCase is split too; a space stands in front unless the name is written without spaces.
    """
    parted = re.sub(r"[_/]+|(?!^-\d)-+", " ", name)  # a minus stays
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", parted).strip() or name
    spaced = not UNSPACED.search(plain)
    return f" {plain}" if spaced else plain
