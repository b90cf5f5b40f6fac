"""Requests of rows: laid out as the prompt was tuned, behind the ids that stand for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from foreword_vllm.errors import RequestError
from foreword_vllm.prefix import Prefix

Tokenize = Callable[[str | list[Any]], Awaitable[list[int]]]
"""Gives the ids of a text without special tokens, or of messages by the chat template."""


def field_of(prefix: Prefix) -> str:
    """Return the one field of the prompt's rows; raises RequestError where there are several."""
    fields = prefix.row["fields"]
    if len(fields) != 1:
        raise RequestError(
            f"the prompt reads the fields {', '.join(fields)}; ask /v1/predict, with inputs that "
            "have these fields"
        )
    return str(fields[0])


async def row_ids(prefix: Prefix, row: Mapping[str, Any], tokenize: Tokenize) -> list[int]:
    """Return a row's tokens behind the prefix.

    Raises RequestError for a row that lacks a field, or is longer than the prompt reads.
    """
    made = prefix.row
    for name in made["fields"]:
        value = row.get(name)
        if not isinstance(value, str) and not (name == "messages" and isinstance(value, list)):
            raise RequestError(f"field '{name}' of an input is missing, or no text")
    messages = row.get("messages") if made["fields"] == ["messages"] else None
    if messages is not None:
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return _whole(prefix, await tokenize(turns))
    pieces = [
        each if isinstance(each, str) else _stripped(row[each[0]], *each[1:])
        for each in made["pieces"]
    ]
    text = "".join(pieces).rstrip(" ")  # a space before the answer is part of its first token
    return _whole(prefix, await tokenize(text) if text else [])


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _whole(prefix: Prefix, ids: list[int]) -> list[int]:
    """Return a row's ids with the tokens that begin a text once, or not at all behind others."""
    first = list(prefix.row["first"])
    begun = ids[: len(first)] == first and len(first) > 0
    if prefix.row["begins"] and not begun:
        ids = [*first, *ids]
    if prefix.row["drops_first"] and begun and len(ids) > len(first):
        ids = ids[len(first) :]
    if not ids:
        raise RequestError("the row has no tokens")
    if len(ids) > prefix.row["tokens"]:
        raise RequestError(
            f"the row has {len(ids)} tokens, and the prompt reads at most {prefix.row['tokens']}; "
            "shorten it"
        )
    return ids


def check_window(prefix: Prefix, ids: Sequence[int], more: int) -> None:
    """Raise RequestError for a row that grows past a sliding window.

    Foreword lets a prefix be seen from any distance, and vLLM as far as the window reaches.
    """
    window = prefix.model["window"]
    if window is not None and prefix.positions + len(ids) + more > window:
        raise RequestError(
            f"the row has {len(ids)} tokens and may grow by {more}: with the {prefix.positions} of "
            f"the prompt that is more than the model's sliding window of {window}, past which vLLM "
            "would not show it the prompt; shorten the row, or lower max_tokens"
        )
