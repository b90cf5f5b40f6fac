"""Rows and templates said otherwise: misspelled, shortened, reworded, laid out in another way."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from unicodedata import name

from foreword.data.row import Row
from foreword.tasks.templates.template import Template, literal

SWAPS: Mapping[str, str] = {
    **{"good": "fine", "bad": "poor", "great": "wonderful", "movie": "film", "film": "movie"},
    **{"very": "really", "really": "very", "big": "large", "small": "little", "buy": "purchase"},
    **{
        "get": "receive",
        "need": "require",
        "want": "would like",
        "help": "assist",
        "ask": "inquire",
    },
    **{"begin": "start", "end": "finish", "fast": "quick", "quick": "fast", "funny": "amusing"},
    **{"story": "tale", "parcel": "package", "package": "parcel", "broken": "damaged"},
    **{"money": "cash", "shop": "store", "store": "shop", "send": "ship", "wrong": "incorrect"},
    **{"can't": "cannot", "don't": "do not", "doesn't": "does not", "isn't": "is not"},
    **{
        "didn't": "did not",
        "won't": "will not",
        "it's": "it is",
        "i'm": "i am",
        "you're": "you are",
    },
    **{"that's": "that is", "there's": "there is", "i've": "i have", "cannot": "can't"},
    **{
        "but": "yet",
        "maybe": "perhaps",
        "often": "frequently",
        "smart": "clever",
        "sad": "unhappy",
    },
    **{"actor": "performer", "enough": "sufficient", "however": "though", "also": "too"},
}
"""English words and what may stand in their place; what is left out says nothing new."""

OPENINGS = ("to be honest, ", "well, ", "just so you know, ", "i must say, ")
"""What a person may say first, and mean nothing by."""

Change = Callable[[str, random.Random], str]


def misspelled(text: str, chance: random.Random) -> str:
    """Make a slip of the finger in every fifth word of four letters or more, in one at least.

    Two letters change places, or one is left out or written twice. Words are those of scripts that
    have capitals; a sign of Chinese, or a syllable, is no letter, and such texts stay.
    """
    found = (match.span() for match in re.finditer(r"[^\W\d_]{4,}", text))
    places = [(a, b) for a, b in found if all(sign.lower() != sign.upper() for sign in text[a:b])]
    if not places:
        return text
    chosen = chance.sample(places, max(1, round(len(places) / 5)))
    for start, stop in sorted(chosen, reverse=True):
        at = chance.randrange(start + 1, stop - 1)
        kind = chance.randrange(3)
        if kind == 0 and text[at] != text[at + 1]:
            slip = text[at + 1] + text[at]
            text = text[:at] + slip + text[at + 2 :]
        elif kind == 1:
            text = text[:at] + text[at + 1 :]
        else:
            text = text[:at] + text[at] + text[at:]
    return text


def shortened(text: str, chance: random.Random) -> str:
    """Keep the first half of the words; of a text without spaces, of its characters."""
    words = re.findall(r"\S+\s*", text)
    parts = words if len(words) > 1 else list(text)
    return "".join(parts[: -(-len(parts) // 2)]).rstrip()


def reworded(text: str, chance: random.Random) -> str:
    """Put other words in the place of English ones, and say something empty in front.

    A text with words of another script stays as it is.
    """
    if any(sign.isalpha() and not name(sign, "").startswith("LATIN") for sign in text):
        return text
    if not re.search(r"[A-Za-z]", text):
        return text
    swapped = re.sub(r"[A-Za-z']+", _swap, text)
    if not re.match(r"I\b|[A-Z]{2}", swapped):
        swapped = swapped[:1].lower() + swapped[1:]
    return chance.choice(OPENINGS) + swapped


def _swap(found: re.Match[str]) -> str:
    word = found[0]
    other = SWAPS.get(word.lower(), word)
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


CHANGES: Mapping[str, Change] = {
    "reworded": reworded,
    "misspelled": misspelled,
    "shortened to half": shortened,
}
"""Ways in which people say the same, by what they are called."""

RULES: Mapping[str, str] = {
    "reworded": "some sixty English words are exchanged for others of their meaning, behind an "
    "opening that says nothing",
    "misspelled": "in every fifth word of four letters or more two letters are changed round, or "
    "one is left out or doubled",
    "shortened to half": "the first half of the words; without spaces, of the signs",
}
"""The rule of each way, as a page says it."""


def is_english(texts: Sequence[str]) -> bool:
    """Tell whether texts are written in Latin letters and have English words."""
    words = re.findall(r"\w+", " ".join(texts).lower())
    usual = {"the", "a", "is", "to", "and", "of", "it", "in", "my", "i", "was", "that", "for"}
    return sum(word in usual for word in words) > 0.05 * max(1, len(words))


def changed_rows(
    rows: Sequence[Row], fields: Sequence[str], change: Change, seed: int
) -> list[Row]:
    """Change the texts of fields; what is no text, or would be empty, stays as it is."""
    made = []
    for number, row in enumerate(rows):
        chance = random.Random(f"{seed} {number}")
        own = {each: row.fields[each] for each in fields if isinstance(row.fields[each], str)}
        new = {each: change(text, chance) or text for each, text in own.items()}
        made.append(replace(row, fields={**row.fields, **new}))
    return made


def other_templates(source: str) -> dict[str, str]:
    """Return a template in other wordings: its own text written otherwise, the fields the same.

    Empty where it has no text of its own.
    """
    template = Template.parse(source)
    words = [part for part in template.parts if isinstance(part, str)]
    if not re.search(r"\w", "".join(words)) or template.chat:
        return {}
    ways: dict[str, Callable[[str], str]] = {
        "template in one line": lambda text: re.sub(r"[ \t]*\n+", " ", text),
        "template in lower case": str.lower,
        "template in capitals": str.upper,
        "template without colons": lambda text: text.replace(":", ""),
    }
    made = {called: _rewritten(source, template, way) for called, way in ways.items()}
    return {called: other for called, other in made.items() if other != source}


def _rewritten(source: str, template: Template, way: Callable[[str], str]) -> str:
    """Write the texts of a template otherwise; all else stays as its source has it."""
    made, at = "", 0
    for text in (part for part in template.parts if isinstance(part, str)):
        written = literal(text)
        found = source.find(written, at)
        if found < 0:
            return source
        made += source[at:found] + literal(way(text))
        at = found + len(written)
    return made + source[at:]
