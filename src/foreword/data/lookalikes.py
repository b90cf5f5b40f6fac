"""Warnings about rows that seem fine: labels that look alike, texts almost alike, stray signs."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from foreword.data import tables
from foreword.data.duplicates import key_of
from foreword.data.encodings import read_parts
from foreword.data.lists import is_broken, parsed
from foreword.data.row import Row
from foreword.data.tables import DELIMITERS, SAMPLE, find_delimiter

NEAR = 0.8
"""The share of their words that two texts have in common from which on they are almost alike."""

LEAST = 6
"""Words of a text from which on it is compared: shorter ones are alike by chance."""

FEW = 5
"""Rows of a class below which it is hardly learned, and hardly scored."""

ENDS = (
    *("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>"),
    *("<|begin_of_text|>", "<|assistant|>", "<|user|>", "<end_of_turn>", "<start_of_turn>"),
    *("</s>", "<s>", "<eos>", "<bos>", "<pad>", "[INST]", "[/INST]", "[CLS]", "[SEP]", "[PAD]"),
)
"""Special tokens of the usual models, where a model's own are not known."""

_TABLE = re.compile(r"\.(csv|tsv)(\.gz)?:\d+$", re.IGNORECASE)
_WORDS = re.compile(r"[\u3000-\u30ff\u3400-\u9fff]|\w+")


def looks(value: Any) -> str:
    """Reduce a label to how it looks: no case, no spaces or invisible signs at its ends, one form.

    >>> [looks(label) for label in (" Good\\u200b", "1.0", 1, True)]
    ['good', '1', '1', 'true']
    """
    text = unicodedata.normalize("NFKC", str(value))
    seen = "".join(sign for sign in text if unicodedata.category(sign) not in ("Cf", "Cc"))
    folded = " ".join(seen.casefold().split())
    try:
        number = float(folded)
    except ValueError:
        return folded
    return f"{number:g}" if math.isfinite(number) else folded


def alike(labels: Iterable[tuple[Any, str]]) -> tuple[str, ...]:
    """Name the labels, given with their places, that look alike and are not the same."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for label, where in labels:
        groups[looks(label)].setdefault(json.dumps(label, default=str), []).append(where)
    return tuple(
        " and ".join(f"{label} ({len(own)}, as in {own[0]})" for label, own in group.items())
        for group in groups.values()
        if len(group) > 1
    )


def few(labels: Iterable[str]) -> tuple[str, ...]:
    """Name the labels that have few rows."""
    counts = Counter(labels).items()
    return tuple(f"'{label}' has {count}" for label, count in sorted(counts) if count < FEW)


def over_lines(rows: Sequence[Row]) -> tuple[str, ...]:
    """Name the rows of tables of which a cell goes over several lines."""
    return tuple(
        row.where
        for row in rows
        if _TABLE.search(row.where)
        and any(isinstance(cell, str) and "\n" in cell for cell in row.fields.values())
    )


def quoted(rows: Sequence[Row]) -> tuple[str, ...]:
    """Name the rows of tables of which a cell is still in quotes, as behind ``, ``."""
    return tuple(
        row.where
        for row in rows
        if _TABLE.search(row.where)
        and any(re.fullmatch(r'\s*".+"\s*', str(cell), re.DOTALL) for cell in row.fields.values())
    )


LISTS = ("labels", "tags", "tokens", "candidates", "references", "answers", "messages")
"""Fields that usually hold lists."""


def broken_lists(rows: Sequence[Row], label_field: str) -> tuple[str, ...]:
    """Name the rows with a text that is plainly a list and cannot be read.

    Looked at are the labels, fields that usually hold lists, and those in which others are some.
    """
    cells = [
        (row.where, name, value)
        for row in rows
        for name, value in row.fields.items()
        if isinstance(value, str) and value.lstrip().startswith("[")
    ]
    lists = {*LISTS, label_field}
    lists |= {name for _, name, cell in cells if isinstance(parsed(cell), list)}
    return tuple(
        f"{where} '{name}'" for where, name, cell in cells if name in lists and is_broken(cell)
    )


def other_delimiter(rows: Sequence[Row]) -> tuple[str, ...]:
    """Name the columns of a table whose names, or all cells, hold a sign that may part cells."""
    if not _TABLE.search(rows[0].where):
        return ()
    places = [
        f"{rows[0].where}: the column '{name}' holds a {called}"
        for name in rows[0].fields
        for sign, called in DELIMITERS.items()
        if sign in str(name)
    ]
    (only, *others) = rows[0].fields
    if not others and not places:
        cells = ([str(row.fields.get(only, ""))] for row in rows[:SAMPLE])
        if sign := tables.other_delimiter([[str(only)], *cells]):
            places.append(f"{rows[0].where}: the only column '{only}' holds {sign!r} in all rows")
    return tuple(places)


def ending(path: Path, encoding: str | None = None) -> tuple[str, ...]:
    """Say where the cells of a table are parted by another sign than the file's ending says."""
    usual = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if usual is None or not path.is_file():
        return ()
    found = find_delimiter(read_parts(path, str(path), western=True, given=encoding)[0])
    if found in (None, usual):
        return ()
    return (f"{path}: is read with a {DELIMITERS.get(found or '', repr(found))} between cells",)


def with_ends(texts: Iterable[tuple[str, str]], ends: Sequence[str]) -> tuple[str, ...]:
    """Name the places of texts that hold one of these tokens; each text is behind its place."""
    any_of = re.compile("|".join(map(re.escape, sorted(ends, key=len, reverse=True))) or r"\Z\A")
    hits = ((where, any_of.search(text)) for where, text in texts)
    return tuple(f"{where} {hit[0]!r}" for where, hit in hits if hit)


def near(
    known: Sequence[Row], rows: Sequence[Row], fields: Sequence[str]
) -> Iterator[tuple[Row, Row]]:
    """Yield rows that are almost the same as known ones, and not the same, each with the first.

    Two texts of n and m words, of which k are in both, are almost the same where
    k / (n + m - k) is ``NEAR`` or more (Jaccard). Candidates share one of their rarest words
    (Bayardo et al. 2007, "Scaling up all pairs similarity search").
    """
    first: dict[frozenset[str], int] = {}
    for number, row in enumerate(known):
        first.setdefault(_bag(row, fields), number)
    bags = [_bag(row, fields) for row in rows]
    rare = Counter(word for bag in (*first, *bags) for word in bag)

    def rarest(bag: frozenset[str]) -> list[str]:
        words = sorted(bag, key=lambda word: (rare[word], word))
        return words[: len(words) - math.ceil(NEAR * len(words)) + 1] if words else []

    index: dict[str, list[frozenset[str]]] = defaultdict(list)
    for bag in first:
        for word in rarest(bag):
            index[word].append(bag)
    same = {key_of(row, fields) for row in known}
    for row, bag in zip(rows, bags, strict=True):
        if not bag or key_of(row, fields) in same:
            continue
        others = {other for word in rarest(bag) for other in index.get(word, ())}
        found = [first[other] for other in others if _share(bag, other) >= NEAR]
        if found:
            yield row, known[min(found)]


def _bag(row: Row, fields: Sequence[str]) -> frozenset[str]:
    """Return the words of a row; one that occurs again is another word."""
    seen: Counter[str] = Counter()
    made = []
    for word in _WORDS.findall(" ".join(str(row.fields.get(name, "")) for name in fields).lower()):
        seen[word] += 1
        made.append(f"{word}/{seen[word]}" if seen[word] > 1 else word)
    return frozenset(made) if len(made) >= LEAST else frozenset()


def _share(one: frozenset[str], other: frozenset[str]) -> float:
    both = len(one & other)
    return both / (len(one) + len(other) - both)
