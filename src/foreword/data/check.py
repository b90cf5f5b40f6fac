"""Check rows before they are learned from: what is there, and what is wrong, with places."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.data.clean import blank, conflicting, is_empty, repeated, scores
from foreword.data.duplicates import key_of
from foreword.data.lookalikes import (
    ENDS,
    alike,
    broken_lists,
    few,
    near,
    other_delimiter,
    over_lines,
    quoted,
    with_ends,
)
from foreword.data.problems import Checked, Problem, in_order
from foreword.data.row import Row
from foreword.data.shapes import canonical, inputs_of, required_of
from foreword.errors import UserError

LONG_CHARACTERS = 2048
"""Characters beyond which a row is long where tokens are not counted: about 512 of them."""

NO_FIELD = ""
"""The field of labels where rows have none: answers that are texts or numbers are no classes."""

IMBALANCED = 0.8
"""The share of a class from which on naming it for every row looks like a good score."""

HALF = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Halves of surrogate pairs, and control characters but for new lines and tabs."""


@dataclass(frozen=True)
class Lengths:
    """How long a row is: what counts its texts, in which unit, and from when it is long."""

    count: Callable[[str], int] = len
    unit: str = "characters"
    most: int = LONG_CHARACTERS


def check(
    splits: Mapping[str, Sequence[Row]],
    *,
    fields: Sequence[str] | None = None,
    label_field: str = "label",
    classes: bool = False,
    special: Sequence[str] = ENDS,
    lengths: Lengths | None = None,
    unread: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Checked:
    """Describe splits of one set of data and find what is wrong; the first one is trained on.

    ``fields`` are those that are read; without, ``inputs_of`` names them. With ``classes`` the
    labels are known to be classes, of which each should have some rows. ``special`` are tokens that
    no text should hold. ``unread`` are the places in each split of rows that could not be read.
    ``progress`` is told how many more rows are done.
    """
    lengths = lengths or Lengths()
    first = next(iter(splits.values()))
    names = tuple(fields or inputs_of(first[0], label_field))
    needed = required_of(names, named=bool(fields))
    about: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for name, rows in splits.items():
        problems.append(Problem("unreadable", name, tuple((unread or {}).get(name, ()))))
        measured = [sum(map(lengths.count, _texts(row, names))) for row in rows]
        about[name] = _described(rows, names, measured, lengths.unit, label_field)
        problems += _within(name, rows, names, needed, label_field, special)
        long = [r.where for r, size in zip(rows, measured, strict=True) if size > lengths.most]
        problems.append(Problem("long", name, tuple(long)))
        progress(len(rows))
    problems += _between(splits, names, needed, label_field)
    train = next(iter(splits))
    if classes:
        labels = [str(label) for label, _ in _answers(splits[train], label_field)]
        problems.append(Problem("few rows of a class", train, few(labels)))
    return Checked(about, in_order(problems))


def _described(
    rows: Sequence[Row],
    names: Sequence[str],
    measured: Sequence[int],
    unit: str,
    label_field: str,
) -> dict[str, Any]:
    try:
        shape, _ = canonical(rows[:1])
    except UserError:
        shape = "fields"  # what is wrong with the row is told among the problems
    made: dict[str, Any] = {"rows": len(rows), "shape": shape, "fields": list(rows[0].fields)}
    made["compared"] = list(names)
    ordered = sorted(measured)
    made["length"] = {
        "unit": unit,
        "median": statistics.median_low(ordered),
        "95%": ordered[int(0.95 * (len(ordered) - 1))],
        "longest": ordered[-1],
    }
    labels = Counter(_labels(rows, label_field))
    if labels:
        made["labels"] = dict(sorted(labels.items(), key=lambda pair: (-pair[1], pair[0])))
    return made


def _within(
    split: str,
    rows: Sequence[Row],
    names: Sequence[str],
    needed: Sequence[str],
    label_field: str,
    special: Sequence[str],
) -> Iterator[Problem]:
    """Find what is wrong in one split."""

    def those(kind: str, wrong: Callable[[Row], object]) -> Problem:
        return Problem(kind, split, tuple(row.where for row in rows if wrong(row)))

    labelled = label_field in rows[0].fields
    needed = [*needed, *([label_field] if labelled else [])]
    yield those("missing field", lambda row: [n for n in needed if n not in row.fields])

    def there(row: Row, some: Sequence[str]) -> list[str]:
        return [name for name in some if name in row.fields]

    yield those("empty", lambda row: is_empty(row, there(row, names), there(row, needed)))
    yield those("wrong shape", _malformed)
    joined = [(row.where, "".join(_texts(row, tuple(row.fields)))) for row in rows]

    def texts(kind: str, wrong: Callable[[str], object]) -> Problem:
        return Problem(kind, split, tuple(where for where, text in joined if wrong(text)))

    yield texts("half a character", HALF.search)
    yield texts("not NFC", lambda text: not unicodedata.is_normalized("NFC", text))
    yield texts("control character", CONTROL.search)
    yield Problem("special token", split, with_ends(joined, special))
    yield Problem("cell over several lines", split, over_lines(rows))
    yield Problem("quotes left", split, quoted(rows))
    yield Problem("broken list", split, broken_lists(rows, label_field))
    yield Problem("other delimiter", split, other_delimiter(rows))
    said = [row for row in rows if not is_empty(row, names, needed)]
    if labelled:
        groups = conflicting(said, names, label_field).values()
        yield Problem("label conflict", split, tuple(r.where for group in groups for r in group))
    yield Problem("duplicate", split, tuple(row.where for row in repeated(said, names)))
    counts = Counter(_labels(rows, label_field)).most_common()
    if len(counts) > 1 and not scores(name for name, _ in counts):
        (name, largest), (_, smallest) = counts[0], counts[-1]
        uneven = largest > IMBALANCED * len(rows) or smallest * 10 * len(counts) < len(rows)
        place = f"'{name}' has {largest} of {len(rows)} rows, '{counts[-1][0]}' {smallest}"
        yield Problem("imbalance", split, (place,) if uneven else ())


def _between(
    splits: Mapping[str, Sequence[Row]],
    names: Sequence[str],
    needed: Sequence[str],
    label_field: str,
) -> Iterator[Problem]:
    """Find what is wrong with splits beside one another, of which the first is trained on."""
    seen: dict[tuple[str, ...], Row] = {}
    train = next(iter(splits))
    every = [pair for rows in splits.values() for pair in _answers(rows, label_field)]
    if not scores(str(label) for label, _ in every):
        yield Problem("labels alike", train, alike(every))
    known = Counter(_labels(splits[train], label_field))
    elsewhere: set[str] = set()
    for split, rows in splits.items():
        said = [row for row in rows if not is_empty(row, names, needed)]
        keys = [(key_of(row, names), row) for row in said]
        again = [f"{row.where} (as {seen[key].where})" for key, row in keys if key in seen]
        yield Problem("also in another split", split, tuple(again))
        seen = {**dict(keys), **seen}
        if split != train:
            pairs = near(splits[train], rows, names)
            places = tuple(f"{row.where} (like {known.where})" for row, known in pairs)
            yield Problem("almost in another split", split, places)
        if split == train or not known or scores(known):
            continue
        labels = [(_label(row, label_field), row.where) for row in rows]
        elsewhere |= {label for label, _ in labels}
        unseen = [f"{where} '{label}'" for label, where in labels if label and label not in known]
        yield Problem("label not in train", split, tuple(unseen))
    if elsewhere - {""}:
        alone = tuple(f"'{label}'" for label in known if label not in elsewhere)
        yield Problem("label in train only", train, alone)


def _malformed(row: Row) -> bool:
    """Tell whether a row is of a shape (a conversation, references) and breaks its rules."""
    try:
        canonical([row], targets=False)
    except UserError:
        return (
            "messages" in row.fields
            or "conversations" in row.fields
            or ("references" in row.fields)
        )
    return False


def _texts(row: Row, names: Sequence[str]) -> list[str]:
    """Return all texts in the named fields of a row, those in lists and objects too."""
    found: list[str] = []
    left = [row.fields.get(name) for name in reversed(names)]
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            left += reversed(value)
        elif isinstance(value, Mapping):
            left += reversed(list(value.values()))
    return found


def _label(row: Row, field: str) -> str:
    value = row.fields.get(field)
    return "" if blank(value) or isinstance(value, list | dict) else str(value)


def _answers(rows: Sequence[Row], field: str) -> list[tuple[Any, str]]:
    """Return the labels of rows as they were read, those in lists too, with their places."""
    given = [(row.fields.get(field), row.where) for row in rows]
    listed = [(value if isinstance(value, list) else [value], where) for value, where in given]
    return [
        (label, where)
        for labels, where in listed
        for label in labels
        if isinstance(label, str | int | float) and str(label).strip()
    ]


def _labels(rows: Sequence[Row], field: str) -> list[str]:
    return [label for row in rows if (label := _label(row, field))]
