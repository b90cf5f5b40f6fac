"""Choose among rows, always the same way for the same seed, and fingerprint the choice."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from foreword.data.row import Row
from foreword.data.shapes import require
from foreword.errors import UserError
from foreword.grammar import counted

T = TypeVar("T")


def shuffled(rows: Sequence[T], seed: int) -> list[T]:
    """Give the rows in an order that the seed alone decides."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order


def first(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """Give the first `n` rows after shuffling, so that a smaller `n` is a part of a larger one.

    Raises UserError when there are fewer, or when `n` is below 1.
    """
    if not 1 <= n <= len(rows):
        raise UserError(
            f"{file_of(rows)}{counted(n, 'row')} asked for; choose from 1 to {len(rows)}, "
            "all it has"
        )
    return shuffled(rows, seed)[:n]


def hold_out(
    rows: Sequence[Row], share: float, seed: int, by: str | None = None
) -> tuple[list[Row], list[Row]]:
    """Part the rows in two, (train, dev), each in the order of the file.

    Dev gets `share` of the rows (0 < share < 1, rounded, at least one row each side), taken from
    each class of the field `by` in proportion (Webster's method: the next row is the one of the
    smallest (taken + 1/2) / size). A class leaves at least one row in train, and so a class of one
    row is not held out; unless every class is of one row, when `by` cannot matter.

    Raises UserError for a share out of range, fewer than two rows, or a row without the field.
    """
    if not 0 < share < 1:
        raise UserError(f"{share} is no share to hold out; choose between 0 and 1, such as 0.1")
    if len(rows) < 2:
        raise UserError(
            f"{file_of(rows)}{counted(len(rows), 'row')} cannot be parted in train and dev; "
            "give two or more"
        )
    classes = _classes(rows, by)
    if len(set(classes)) == len(rows):
        classes = [""] * len(rows)
    count = max(1, round(share * len(rows)))
    held = set(_in_proportion(classes, seed, spare=1)[:count])
    train = [row for index, row in enumerate(rows) if index not in held]
    return train, [rows[index] for index in sorted(held)]


def folds(
    rows: Sequence[Row], k: int, seed: int, by: str | None = None
) -> list[tuple[list[Row], list[Row]]]:
    """Part the rows in ``k`` folds; return (train, dev) of each, in the order of the file.

    Every row is in the dev part of one fold, and each class of the field ``by`` is dealt to them in
    turn. A class of one row stays in train everywhere, unless too few rows for ``k`` are left.

    Raises UserError for fewer than two folds, fewer rows than folds, or a row without the field.
    """
    if not 2 <= k <= len(rows):
        raise UserError(
            f"{file_of(rows)}{counted(len(rows), 'row')} cannot be parted in {k} folds; give "
            "more rows"
        )
    classes = _classes(rows, by)
    order = sorted(shuffled(range(len(rows)), seed), key=lambda index: classes[index])
    size = Counter(classes)
    several = [index for index in order if size[classes[index]] > 1]
    order = several if len(several) >= k else order
    parted = []
    for number in range(k):
        held = set(order[number::k])
        train = [row for index, row in enumerate(rows) if index not in held]
        parted.append((train, [rows[index] for index in sorted(held)]))
    return parted


def stratified(classes: Sequence[object], n: int, seed: int) -> list[int]:
    """Draw ``n`` rows, by number and in order, from each of their classes in proportion.

    All of them where there are no more.
    """
    return sorted(_in_proportion(classes, seed)[:n])


def _in_proportion(classes: Sequence[object], seed: int, spare: int = 0) -> list[int]:
    """Order rows, by number, so that the first ones are of every class in proportion.

    The next row is the one of the smallest (taken + 1/2) / size. ``spare`` rows of each class are
    left out.
    """
    order = shuffled(range(len(classes)), seed)
    size, seen = Counter(classes), Counter[object]()
    queue = []  # (priority, index); equal priorities stay in shuffled order
    for index in order:
        name = classes[index]
        seen[name] += 1
        if seen[name] <= size[name] - spare:
            queue.append(((seen[name] - 0.5) / size[name], index))
    return [index for _, index in sorted(queue, key=lambda pair: pair[0])]


def per_class(rows: Sequence[Row], k: int, seed: int, by: str) -> list[Row]:
    """Give `k` rows of each class of the field `by`, in shuffled order, for few-shot use.

    Raises UserError when `k` is below 1, when a class has fewer rows (naming the smallest), or for
    a row without the field.
    """
    if k < 1:
        raise UserError(f"{counted(k, 'row')} per class asked for; choose 1 or more")
    size = Counter(_classes(rows, by))
    smallest = min(size, key=lambda name: size[name], default="")
    if size[smallest] < k:
        raise UserError(
            f"{file_of(rows)}class '{smallest}' has {counted(size[smallest], 'row')}, but {k} per "
            f"class are asked for; choose {size[smallest]} or fewer, or add rows"
        )
    taken: Counter[str] = Counter()
    chosen = []
    for row in shuffled(rows, seed):
        name = str(row.fields[by])
        taken[name] += 1
        if taken[name] <= k:
            chosen.append(row)
    return chosen


def draw(
    rows: Sequence[Row], n: int | None, per_label: int | None, seed: int, by: str | None
) -> list[Row]:
    """Give `n` rows, or `per_label` of each class of the field `by`, or with neither all.

    Raises UserError for both, for rows that there are not, and for labels where `by` is None.
    """
    if per_label is None:
        return list(rows) if n is None else first(rows, n, seed)
    if n is not None:
        raise UserError("`rows` and `per_label` both say how many rows; give one")
    if by is None:
        raise UserError("`per_label`: rows of this task have no single label; use `rows`")
    return per_class(rows, per_label, seed, by)


def others(
    rows: Sequence[Row], taken: Sequence[Row], k: int | None, seed: int, by: str | None
) -> list[Row] | None:
    """Give `k` rows of each class that are not `taken`, for dev; None where they are too few.

    As in LM-BFF (Gao et al. 2021, arXiv:2012.15723, section 3), where dev is as small as train:
    who has few rows to train on has few to choose by.
    """
    if k is None or by is None:
        return None
    chosen = {id(row) for row in taken}
    left = [row for row in rows if id(row) not in chosen]
    size = Counter(str(row.fields[by]) for row in left)
    if any(size[str(row.fields[by])] < k for row in taken):
        return None
    return per_class(left, k, seed, by)


def digest(rows: Sequence[Row]) -> str:
    """Hash the rows' fields: sha256 (hex) of one canonical JSON object a line, in order.

    Canonical means keys sorted, no spaces, ASCII; where the rows were read does not enter.
    """
    running = hashlib.sha256()
    for row in rows:
        line = json.dumps(dict(row.fields), sort_keys=True, separators=(",", ":"), default=str)
        running.update(line.encode() + b"\n")
    return running.hexdigest()


def _classes(rows: Sequence[Row], by: str | None) -> list[str]:
    if by is None:
        return [""] * len(rows)
    require(rows, [by], mend="name its column with `label_field`")
    return [str(row.fields[by]) for row in rows]


def file_of(rows: Sequence[Row]) -> str:
    """Begin an error line about all rows with the file they come from, where there is one."""
    file = rows[0].where.rpartition(":")[0] if rows else ""
    return f"{file}: " if file else ""
