"""Words: how text is cut for scores, in any script."""

from __future__ import annotations

import re
import unicodedata

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
CJK = re.compile(f"[{_HAN}{KANA}]")

HALF = {0xFF01 + n: 0x21 + n for n in range(94)} | {0x3000: 0x20}
"""The full-width forms of ASCII, and what they are forms of."""


def words(text: str) -> list[str]:
    """Split lowercased text into runs of letters, digits and their marks, for ROUGE.

    On ASCII text this is what rouge-score's own tokenizer does, which drops all other letters. Each
    Han or kana character is a word; other scripts without spaces (Thai, Khmer) are not cut.
    Full-width letters and digits are read as the usual ones.

    >>> words("It's Größe 42, 你好!")
    ['it', 's', 'größe', '42', '你', '好']
    """
    found: list[str] = []
    inside = False
    for char in half_width(text).lower():
        kind = unicodedata.category(char)[0]
        if kind in "LN" and CJK.match(char):
            found.append(char)
            inside = False
        elif inside and kind in "LNM":
            found[-1] += char
        else:
            inside = kind in "LN"
            if inside:
                found.append(char)
    return found


def half_width(text: str) -> str:
    """Write the full-width forms of ASCII as ASCII, character by character: ``１２％`` as ``12%``.

    The ideographic space becomes a space. All else stays, so that places in the text do too.
    """
    return text.translate(HALF)


class Words:
    """`words` as the tokenizer object that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words."""
        return words(text)
