"""The parts of the rows: those that trials train on and are judged by, and those held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from foreword.data.row import Row
from foreword.data.sample import digest, folds, hold_out, stratified
from foreword.errors import UserError
from foreword.grammar import counted, is_are
from foreword.training.prepare import DEV_SHARE

FEW = 200
"""Rows below which a trial is judged on all of them, fold by fold."""

FOLDS = 3
"""Folds of few rows."""

SHARE = 0.2
"""The share of rows that is held back from the search, and of the others that judges trials."""

LEAST_DEV = 32
"""Dev rows that are left at the least of those that are held out, where the time is short."""


@dataclass(frozen=True)
class Parts:
    """``folds`` are (train, dev) pairs: one, or several of few rows.

    ``held`` are the rows that no trial sees, on which the winner is scored; ``every`` all rows
    that a prompt may be tuned on at last, and ``dev`` the dev rows that were given.
    """

    folds: Sequence[tuple[Sequence[Row], Sequence[Row]]]
    held: Sequence[Row]
    every: Sequence[Row]
    dev: Sequence[Row] | None

    @property
    def again(self) -> float:
        """How long tuning on all rows takes, as a multiple of a trial.

        Without dev rows a share of them is held back.
        """
        learned = len(self.every) * (1.0 if self.dev is not None else 1.0 - DEV_SHARE)
        return learned / sum(len(train) for train, _ in self.folds)

    @property
    def tuned(self) -> int:
        """How many rows a fold is tuned on."""
        return len(self.folds[0][0])

    @property
    def judged(self) -> int:
        """How many dev rows a trial is judged by."""
        return sum(len(dev) for _, dev in self.folds)

    def fewer(self, most: int, seed: int, by: str | None) -> Parts:
        """Return parts of which each fold is tuned on ``most`` rows, and judged by fewer.

        What is left of them has the classes, in the field ``by``, in proportion. Dev rows that were
        given, and the folds of few rows, are all judged.
        """

        def drawn(rows: Sequence[Row], most: int) -> Sequence[Row]:
            classes = [row.fields.get(by or "") for row in rows]
            return [rows[number] for number in stratified(classes, most, seed)]

        whole = len(self.folds) > 1 or self.dev is not None
        left = [
            (
                drawn(train, most),
                drawn(dev, len(dev) if whole else max(LEAST_DEV, len(dev) * most // self.tuned)),
            )
            for train, dev in self.folds
        ]
        return replace(self, folds=left)

    def about(self) -> dict[str, Any]:
        """Describe the rows by their numbers and a hash."""
        every = [row for pair in self.folds for part in pair for row in part]
        return {
            "train": self.tuned,
            "dev": self.judged,
            "folds": len(self.folds),
            "held": len(self.held),
            "sha256": digest([*every, *self.held]),
        }

    def __str__(self) -> str:
        how = (
            f"{len(self.folds)} folds of {self.judged} rows"
            if len(self.folds) > 1
            else f"{counted(self.judged, 'dev row')}, tuned on {self.tuned}"
        )
        held = counted(len(self.held), "other")
        return f"trials are judged on {how}; the best one is scored on {held}"


def part_rows(
    train: Sequence[Row],
    dev: Sequence[Row] | None,
    test: Sequence[Row] | None,
    seed: int,
    by: str | None,
) -> Parts:
    """Part the rows of a search. ``by`` is the field of their classes.

    Raises UserError for too few rows.
    """
    for name, rows in (("dev", dev), ("test", test)):
        if rows is not None and not rows:
            raise UserError(f"there are no {name} rows; give some, or leave `{name}` out")
    if len(train) < 5:
        raise UserError(
            f"{counted(len(train), 'row')} {is_are(len(train))} too few to search with; give 5 "
            "or more"
        )
    used, held = (list(train), test) if test is not None else hold_out(train, SHARE, seed, by=by)
    if dev is not None:
        parted: Sequence[tuple[Sequence[Row], Sequence[Row]]] = [(used, dev)]
    elif len(used) < FEW:
        parted = folds(used, min(FOLDS, len(used)), seed, by)
    else:
        parted = [hold_out(used, SHARE, seed, by=by)]
    parted = [(tuned, judged) for tuned, judged in parted if judged]  # of few rows some have none
    return Parts(parted, held, train, dev)
