"""Row: one example, which remembers where it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One example: its fields, where they were read, and which of several tasks it is of."""

    fields: Mapping[str, Any]
    where: str = "row"
    """`train.jsonl:17`: the path as given, then the line, both as an editor shows them. Formats
    without lines of their own (JSON, Parquet, `datasets`) count records from 1 instead. Rows that
    come from no file are called by what they are."""
    task: int = 0


def kind(value: object) -> str:
    """Say what a value read from a file is, in the words of an error line."""
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}
