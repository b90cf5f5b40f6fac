"""Clean rows: signs are mended, and rows that cannot be right are left out."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foreword.data.duplicates import Key, key_of, overlap
from foreword.data.row import Row
from foreword.data.shapes import NUMBERS, TARGETS, inputs_of, required_of


@dataclass(frozen=True)
class Cleaned:
    """What is left of rows, and where each kind of change was made (`FILE:LINE`)."""

    rows: list[Row]
    changes: Mapping[str, list[str]] = field(default_factory=dict)


def mended(value: Any) -> Any:
    """Return a value with its texts in NFC and without control characters or halves of others.

    New lines and tabs stay. NFC (Unicode, UAX 15) writes a letter and its accent as one sign.
    """
    if isinstance(value, str):
        return unicodedata.normalize("NFC", "".join(sign for sign in value if not control(sign)))
    if isinstance(value, list):
        return [mended(each) for each in value]
    if isinstance(value, Mapping):
        return {name: mended(each) for name, each in value.items()}
    return value


def control(sign: str) -> bool:
    """Tell a control character, or half of a surrogate pair, from what belongs in a text."""
    return sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cs")


def blank(value: Any) -> bool:
    """Tell whether a field holds nothing; NaN is what tables have where a cell is empty."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value in ([], {}) or (isinstance(value, float) and math.isnan(value))


def empty_fields(row: Row, names: Sequence[str]) -> list[str]:
    """Return the named fields that a row lacks, or in which there is nothing."""
    return [name for name in names if blank(row.fields.get(name))]


def is_empty(row: Row, inputs: Sequence[str], needed: Sequence[str]) -> bool:
    """Tell whether a row says nothing in all its inputs, or in one of the fields it needs."""
    return bool(empty_fields(row, needed)) or 0 < len(inputs) == len(empty_fields(row, inputs))


def scores(labels: Iterable[str]) -> bool:
    """Tell scores from classes: labels that are all numbers, and some of them no whole ones."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and not all(map(float.is_integer, numbers))


def conflicting(rows: Sequence[Row], fields: Sequence[str], label: str) -> dict[Key, list[Row]]:
    """Return the rows that say the same and are labelled differently, by what they say.

    Scores may differ: none of them is a conflict.
    """
    if scores({str(row.fields.get(label)) for row in rows}):
        return {}
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key_of(row, fields)].append(row)
    return {
        key: group
        for key, group in groups.items()
        if len({str(row.fields.get(label)) for row in group}) > 1
    }


def repeated(rows: Sequence[Row], fields: Sequence[str]) -> list[Row]:
    """Return the rows that say what an earlier row says, in their inputs and all else but numbers.

    Those are the numbers of rows, such as ``id``.
    """
    seen: set[Key] = set()
    found = []
    for row in rows:
        rest = [name for name in sorted(row.fields) if name not in (*fields, *NUMBERS)]
        key = (*key_of(row, fields), *key_of(row, rest))
        if key in seen:
            found.append(row)
        seen.add(key)
    return found


def clean(
    rows: Sequence[Row],
    *,
    fields: Sequence[str] | None = None,
    label_field: str = "label",
    known: Sequence[Row] = (),
) -> Cleaned:
    """Mend the signs of rows; leave out empty ones, conflicts, repetitions, and those ``known``.

    ``fields`` are those that are read; without, ``inputs_of`` names them. Of rows that differ in
    their labels none is kept, as which is right cannot be told: where ``fields`` are given those
    that are alike in them, and else those that are alike in all but their numbers.
    """
    names = tuple(fields or inputs_of(rows[0], label_field)) if rows else ()
    changes: dict[str, list[str]] = {}

    def note(kind: str, some: Sequence[Row]) -> None:
        if some:
            changes[kind] = [row.where for row in some]

    def without(kind: str, some: Sequence[Row]) -> list[Row]:
        note(kind, some)
        gone = {id(row) for row in some}
        return [row for row in made if id(row) not in gone]

    made = [Row(mended(dict(row.fields)), row.where) for row in rows]
    changed = [new for new, old in zip(made, rows, strict=True) if new.fields != dict(old.fields)]
    note("mended: NFC, control characters", changed)
    labelled = bool(rows) and label_field in rows[0].fields
    needed = required_of(names, named=bool(fields)) + [label_field] * labelled
    made = without("dropped: empty", [row for row in made if is_empty(row, names, needed)])
    if labelled:
        answers = (*TARGETS, *NUMBERS, label_field)
        apart = fields or [name for name in rows[0].fields if name not in answers]
        groups = conflicting(made, apart, label_field)
        made = without("dropped: label conflict", [row for own in groups.values() for row in own])
    made = without("dropped: duplicate", repeated(made, names))
    made = without("dropped: in another file", overlap(made, known, names))
    return Cleaned(made, changes)
