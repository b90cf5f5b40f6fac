"""Rows that cannot be used: the first one ends what reads it, or all of them are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.grammar import counted, is_are

T = TypeVar("T")

OnBad = Callable[[UserError], None]
"""Is given the error of a row that cannot be used; if it returns, the row is left out."""

SHOWN = 10
"""Rows that are named where many are left out."""


def refuse(error: UserError) -> None:
    """End at the first row that cannot be used."""
    raise error


def convert(
    rows: Iterable[Row], function: Callable[[Row], T], on_bad: OnBad = refuse
) -> Iterator[T]:
    """Yield what a function makes of each row; ``on_bad`` is given the errors that it raises."""
    for row in rows:
        try:
            made = function(row)
        except UserError as error:
            on_bad(error)
        else:
            yield made


class BadRows:
    """Collects the errors of rows that cannot be used, so that these are left out."""

    def __init__(self) -> None:
        self.errors: list[UserError] = []

    def __call__(self, error: UserError) -> None:
        """Take the error of a row that is left out."""
        self.errors.append(error)

    def check(self, kept: object) -> None:
        """Raise the first error where no row was kept: not single rows, but all are wrong."""
        if self.errors and not kept:
            more = f" (and so for {len(self.errors) - 1} more)" if self.errors[1:] else ""
            raise UserError(f"{self.errors[0]}{more}", field=self.errors[0].field)

    @property
    def reasons(self) -> list[str]:
        """Say of each row where it is and what is wrong, without the advice how to mend it."""
        return [str(error).partition("; ")[0] for error in self.errors]

    @property
    def places(self) -> list[str]:
        """Say of each row where it is: ``FILE:LINE``."""
        return [str(error).partition(": ")[0] for error in self.errors]

    def lines(self, done: str = "left out") -> Iterator[str]:
        """Yield lines for people: how many rows are left out, or what was ``done``, and which."""
        count = len(self.errors)
        if count:
            yield f"{counted(count, 'row')} {is_are(count)} {done}:"
            yield from (f"  {reason}" for reason in self.reasons[:SHOWN])
        if count > SHOWN:
            yield f"  and {count - SHOWN} more"
