"""Words as a text has them: with a space in front, in scripts that put spaces between words."""

from __future__ import annotations

import re

UNSPACED = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
"""Scripts that put no space between words, with their punctuation."""


COMMAS = re.compile("[,，、]")
"""What parts the entries of a list that is written as text, in Chinese too."""

PARTED = re.compile(r"_+|(?<=[^\W\d_])[-/]+(?=[^\W\d_])")
"""What parts the words of a name: underscores, and hyphens and slashes between letters."""


def words_of(name: str) -> str:
    """Turn a label's name into the words a model reads: ``card_not-working`` to its three words.

    CamelCase is split too. All else stays: -1, 1.5, 1/2, COVID-19 and C++ mean what they say.
    """
    parted = PARTED.sub(" ", name)
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", parted).strip() or name
    return as_word(plain)


def as_word(text: str) -> str:
    """Return a text with a space in front, unless it has one or is written without spaces."""
    return text if text.startswith(" ") or UNSPACED.search(text) else f" {text}"


def as_follows(template: str, word: str) -> str:
    """Return a word as the answer to a template: without a space behind Chinese and Japanese.

    >>> as_follows("{text}\\nLabel:", " good"), as_follows("{text}\\n类别：[mask]", " good")
    (' good', 'good')
    """
    before = template.partition("[mask]")[0]
    return word.lstrip(" ") if UNSPACED.search(before[-1:]) else word
