"""Sweeps: settings of a comparison that are given several values, in all their combinations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

from foreword.cli.flags import FLAGS, RUN, Flag
from foreword.cli.words import ESCAPED, flag, unescaped
from foreword.errors import UserError, nearest

OF_RUN = ("model", "dtype", "quantize", "architecture", "pooling", "rows", "per_label")
"""Settings of a run that may have several values; all others are shared by all runs."""

ALONE = ("seed", "headline")
"""Settings with one value: runs of several seeds are one entry, and all entries have one score."""

NAMES = ("start", "init", "model", "dtype", "quantize", "architecture", "pooling")
"""Texts that name something, and so may be a list with commas; other texts are given anew."""


def with_values(each: Flag) -> Flag:
    """Return the flag as a comparison takes it: with several values, where it can have them."""
    shared = each.name in RUN and each.name not in OF_RUN
    several = not (shared or each.name in ALONE or each.type == list[str])
    return dataclasses.replace(each, several=several)


def grid(flags: Any) -> Iterator[dict[str, Any]]:
    """Yield the settings of each combination of the values that flags have.

    Raises UserError for a value that is none of its setting.
    """
    values: dict[str, list[Any]] = {}
    for each in dataclasses.fields(flags):
        given = getattr(flags, each.name)
        if given is not None:
            values[each.name] = values_of(FLAGS[each.name], given)
    for chosen in product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def values_of(kind: Flag, given: Any) -> list[Any]:
    """Return the values of a setting: 1,5,20, or a text for each time that its flag is given."""
    if kind.name in ESCAPED:
        given = unescaped(given)
    swept = with_values(kind).several
    if kind.type is bool and isinstance(given, str):
        given = [given]
    if not (swept and isinstance(given, list)):
        return [given]
    whole = kind.type is str and kind.name not in NAMES
    words = [
        word
        for text in given
        for word in ([text] if whole or Path(text).exists() else text.split(","))
    ]
    found = [_value(kind, word if whole else word.strip()) for word in words]
    return list(dict.fromkeys(found))


def _value(kind: Flag, word: str) -> Any:
    truths = {"true": True, "yes": True, "false": False, "no": False}
    try:
        if kind.type is bool:
            return truths[word.lower()]
        if kind.type in (int, float):
            return kind.type(word)
    except (KeyError, ValueError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind.type]
        raise UserError(f"{flag(kind.name)} {word}: expected {wanted}") from None
    options = get_args(kind.type)
    if options and word not in options:
        raise UserError(f"{flag(kind.name)} {word}: unknown; {nearest(word, options)}")
    return word
