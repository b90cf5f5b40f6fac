"""Values with types of their own, such as dates and arrays, as the values that JSON has."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

SIMPLE = (str, int, float, bool, type(None))


def plain(value: Any) -> Any:
    """Return a value as text, number, list or object, as a CSV or JSON file of it would hold it.

    Dates become ISO texts, decimals texts with all their digits, and arrays, tuples and sets lists.
    The empty cells of pandas (NaT, NA) are None. What is none of these stays as it is.
    """
    if type(value) in SIMPLE:
        return value
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=str)
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return date_text(value)
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # of numpy, pandas, torch
        return plain(value.tolist())
    if hasattr(value, "to_list") and hasattr(value, "dtype"):  # of polars
        return plain(value.to_list())
    return value


def date_text(value: datetime.date | datetime.time) -> str:
    """Return a date or a time in ISO's form; a date alone where the time is midnight."""
    if not isinstance(value, datetime.datetime):
        return value.isoformat()
    midnight = value.time() == datetime.time() and value.tzinfo is None
    return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")


def named(feature: Any, value: Any) -> Any:
    """Return a value with class labels by name, not by number, as a ``feature`` describes it.

    Features are those that the `datasets` library writes into a schema: ``ClassLabel``, alone or in
    lists and objects. A label that is withheld, which it writes as -1, is None.
    """
    if isinstance(feature, list) and feature and isinstance(value, list):
        return [named(feature[0], each) for each in value]
    if not isinstance(feature, Mapping) or value is None:
        return value
    kind, inner = feature.get("_type"), feature.get("feature")
    if kind == "ClassLabel":
        names = feature.get("names") or ()
        if type(value) is not int or value >= len(names):
            return value
        return names[value] if value >= 0 else None
    if kind in ("Sequence", "List", "LargeList"):
        if isinstance(value, list):
            return [named(inner, each) for each in value]
        if isinstance(value, Mapping) and isinstance(inner, Mapping):  # an object of lists
            return {name: named([inner.get(name)], each) for name, each in value.items()}
    if not isinstance(kind, str) and isinstance(value, Mapping):
        return {name: named(feature.get(name), each) for name, each in value.items()}
    return value
