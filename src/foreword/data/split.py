"""Part rows into train, dev and test, so that what says the same is never on two sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foreword.data.clean import scores
from foreword.data.duplicates import key_of
from foreword.data.row import Row
from foreword.data.sample import file_of
from foreword.data.shapes import inputs_of, require
from foreword.errors import UserError
from foreword.grammar import counted

NAMES = ("train", "dev", "test")
Parted = dict[str, list[Row]]

ORDERS = 100
"""Orders in which units are tried until each side has its rows of each class."""


@dataclass(frozen=True)
class Unit:
    """Rows that stay together, by their places, and how many of each class they are."""

    places: tuple[int, ...]
    classes: Counter[str]


def units_of(
    rows: Sequence[Row], fields: Sequence[str] | None, by: str | None, group: str | None
) -> list[Unit]:
    """Put rows together whose fields say the same, or that are of one group (union-find).

    Without ``fields``, those that ``inputs_of`` names are compared, but for the group's.
    Raises UserError for a row without the field ``by`` or ``group``.
    """
    require(rows, [name for name in (by, group) if name is not None])
    inputs = inputs_of(rows[0], by or "label")
    fields = fields or [name for name in inputs if name != group] or inputs
    above = list(range(len(rows)))

    def top(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    first: dict[tuple[str, object], int] = {}
    for place, row in enumerate(rows):
        marks: list[tuple[str, object]] = [("says", key_of(row, fields))]
        if group is not None:
            marks.append(("group", str(row.fields[group])))
        for mark in marks:
            above[top(place)] = top(first.setdefault(mark, place))
    together: dict[int, list[int]] = {}
    for place in range(len(rows)):
        together.setdefault(top(place), []).append(place)
    return [
        Unit(tuple(own), Counter("" if by is None else str(rows[n].fields[by]) for n in own))
        for own in together.values()
    ]


def by_shares(
    rows: Sequence[Row],
    dev: float,
    test: float,
    seed: int,
    *,
    by: str | None = None,
    group: str | None = None,
    fields: Sequence[str] | None = None,
) -> Parted:
    """Part rows by shares, each class of the field ``by`` in proportion.

    Larger units are placed first, in an order that the seed decides, each where its classes lack
    most of their share, so that shares are met as closely as whole units allow; the first unit of
    a class goes to train, for what it has never seen it cannot learn. Rows keep the order of the
    file.

    Raises UserError for shares that leave nothing for train, and for too few rows.
    """
    if not (0 <= dev < 1 and 0 <= test < 1 and 0 < dev + test < 1):
        raise UserError(
            f"`dev={dev:g}` `test={test:g}`: shares are from 0 to below 1, and less than 1 together"
        )
    shares = {"train": 1 - dev - test, "dev": dev, "test": test}
    shares = {name: share for name, share in shares.items() if share}
    units = units_of(rows, fields, by, group)
    random.Random(seed).shuffle(units)
    units.sort(key=lambda unit: -len(unit.places))
    sizes = sum((unit.classes for unit in units), Counter[str]())
    if scores(sizes) or max(sizes.values()) == 1:  # which are no classes
        units = [replace(unit, classes=Counter({"": len(unit.places)})) for unit in units]
        sizes = Counter({"": len(rows)})
    lacking = {n: {c: share * size for c, size in sizes.items()} for n, share in shares.items()}
    left = {name: share * len(rows) for name, share in shares.items()}
    chosen: dict[str, list[int]] = {name: [] for name in shares}
    learned: set[str] = set()
    for unit in units:

        def need(name: str, unit: Unit = unit) -> tuple[float, float]:
            own = sum(n * lacking[name][c] for c, n in unit.classes.items())
            return round(own, 9), left[name]

        new = any(name not in learned for name in unit.classes)
        best = "train" if new else max(shares, key=need)
        learned.update(unit.classes if best == "train" else ())
        chosen[best] += unit.places
        left[best] -= len(unit.places)
        for name, count in unit.classes.items():
            lacking[best][name] -= count
    for name, places in chosen.items():
        if not places:
            raise UserError(
                f"{file_of(rows)}no rows come to {name} of "
                f"{counted(len(units), 'different row')}; give larger shares, or more rows"
            )
    return {name: [rows[n] for n in sorted(places)] for name, places in chosen.items()}


def few(
    rows: Sequence[Row],
    k: int,
    seed: int,
    by: str,
    *,
    group: str | None = None,
    fields: Sequence[str] | None = None,
) -> Parted:
    """Take ``k`` rows of each class for train, as many others for dev, and leave the rest as test.

    As in LM-BFF (Gao et al. 2021, arXiv:2012.15723, section 3). Raises UserError where a class has
    too few rows, or none that make exactly ``k`` where rows of one text or group stay together.
    """
    if k < 1:
        raise UserError(f"`per_label={k}`: give 1 or more")
    units = units_of(rows, fields, by, group)
    sizes = sum((unit.classes for unit in units), Counter[str]())
    for label, size in sizes.items():
        if size < 2 * k:
            raise UserError(
                f"{file_of(rows)}class '{label}' has {counted(size, 'row')}, too few for {k} in "
                f"train and {k} others in dev; choose fewer with `per_label`, or add rows"
            )
    chance = random.Random(seed)
    for _ in range(ORDERS):
        chance.shuffle(units)
        chosen, lacking = _filled(units, k)
        if not lacking:
            found = {name: [rows[n] for n in sorted(places)] for name, places in chosen.items()}
            return {name: own for name, own in found.items() if own}
    raise UserError(
        f"{file_of(rows)}class '{lacking[0]}': {k} rows for train and {k} for dev cannot be chosen "
        "without parting rows that stay together, those of one group or of one text; choose "
        "another `per_label` or `seed`, or add rows"
    )


def _filled(units: Sequence[Unit], k: int) -> tuple[dict[str, list[int]], list[str]]:
    """Put each unit where ``k`` rows of a class still have room for it, first train, then dev.

    Returns the places of the rows of each side, and the classes of which a side has too few.
    """
    held: dict[str, Counter[str]] = {name: Counter() for name in NAMES[:2]}
    chosen: dict[str, list[int]] = {name: [] for name in NAMES}
    for unit in units:
        fits = (
            name
            for name, got in held.items()
            if all(got[c] + more <= k for c, more in unit.classes.items())
        )
        name = next(fits, "test")
        chosen[name] += unit.places
        if name in held:
            held[name].update(unit.classes)
    classes = dict.fromkeys(name for unit in units for name in unit.classes)
    return chosen, [c for c in classes if any(got[c] < k for got in held.values())]
