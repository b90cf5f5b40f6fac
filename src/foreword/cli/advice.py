"""Errors of the library on the command line: the settings that they name become flags."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from cyclopts import App

from foreword.cli.words import flag

NAMED = re.compile(
    r"""(?<!\w)(?P<quote>['"]).*?(?P=quote)(?!\w)|`(?P<name>[a-z][a-z0-9_]*)(?:=(?P<value>[^`]*))?`"""
)
"""A setting in an error of the library, ```length``` or ```length=5```, or a text of a user's in
quotes, which may hold anything."""

ELSEWHERE = " of foreword train"
"""What follows a flag that a command has not."""

MENDS = re.compile(r"(; (?:or )?|, or )")
"""What parts an error from how to mend it, and one way to do so from the next."""


def flags_of(app: App, words: Sequence[str]) -> frozenset[str]:
    """Return the flags of the command that these words call."""
    _, apps, _ = app.parse_commands(words)
    return frozenset(
        name for each in apps[-1].assemble_argument_collection() for name in each.names
    )


def with_flags(error: str, known: Collection[str] | None = None, field: str | None = None) -> str:
    """Turn the settings that an error names into flags.

    Of several ways to mend it those stay that the command can go, by the flags that are ``known``
    to it. Where a setting names the column of a ``field`` of rows, and the command has no such
    flag, ``--columns`` does.

    >>> with_flags("`max_length=0`: give 1 or more")
    '--max-length 0: give 1 or more'
    >>> with_flags("F:1: is too long; part it, or raise `max_length`", {"--columns"})
    'F:1: is too long; part it'
    >>> with_flags("no range; give `low`", {"--columns"})
    'no range; give --low of foreword train'
    """

    def can(name: str) -> bool:
        return known is None or flag(name) in known

    def written(named: re.Match[str]) -> str:
        name, value = named["name"], named["value"]
        if name is None:
            return named[0]
        if not can(name) and name.endswith("_field") and field and can("columns"):
            name, value = "columns", f"{field}=COLUMN"
        words = flag(name) if value is None else f"{flag(name)} {value}"
        return words if can(name) else f"{words}{ELSEWHERE}"

    what, *ways = MENDS.split(error)
    pairs = list(zip(ways[::2], ways[1::2], strict=True))
    open_ = [
        (sign, way)
        for sign, way in pairs
        if not any(written(m).endswith(ELSEWHERE) for m in NAMED.finditer(way))
    ]
    kept = open_ or pairs
    if kept != pairs:
        first = pairs[0][0]
        kept = [(first if n == 0 else sign, way) for n, (sign, way) in enumerate(kept)]
    return NAMED.sub(written, what + "".join(sign + way for sign, way in kept))
