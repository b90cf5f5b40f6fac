"""Words: how text is cut for scores, in any script."""

from __future__ import annotations

import re
import unicodedata

from foreword.errors import UserError

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
CJK = re.compile(f"[{_HAN}{KANA}]")


def words(text: str) -> list[str]:
    """Split lowercased text into runs of letters, digits and their marks, for ROUGE.

    On ASCII text this is what rouge-score's own tokenizer does, which drops all other letters. Each
    Han or kana character is a word; other scripts without spaces (Thai, Khmer) are not cut.

    >>> words("It's Größe 42, 你好!")
    ['it', 's', 'größe', '42', '你', '好']
    """
    found: list[str] = []
    inside = False
    for char in text.lower():
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


def code(language: str) -> str:
    """Return a language's own part of its code, ``zh`` of ``zh-Hans``.

    Raises UserError for what is no such code (BCP 47), such as a language's name.
    """
    first, *rest = re.split("[-_]", language.lower())
    if not re.fullmatch("[a-z]{2,3}", first) or not all(map(str.isalnum, rest)):
        raise UserError(f"`language={language}`: give a language code, such as en, de or zh")
    return first


class Words:
    """`words` as the tokenizer object that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words."""
        return words(text)
