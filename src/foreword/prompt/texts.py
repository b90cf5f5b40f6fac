"""The texts of people that a prompt file holds in clear beside its tensors, and who may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.errors import UserError
from foreword.grammar import counted

STARTS = ("start_text",)
"""Settings of methods that hold a text, not the name of a file."""


def texts_in(meta: Mapping[str, Any]) -> dict[str, int]:
    """Count the texts in a file's metadata by what they are; of an ensemble, those of all members.

    ``demonstrations`` are training rows with their answers, for the baseline in context; ``shown``
    the rows that a template shows; ``catalogue`` the answers that a ranking chooses from.
    """
    found: dict[str, int] = {}
    for each in meta.get("members", [meta]):
        task, data = each.get("task", {}), each.get("data", {})
        counts = {
            "demonstrations": len(data.get("demonstrations") or ()),
            "shown": len(task.get("shown") or ()),
            "catalogue": len(task.get("catalogue") or ()),
            "start texts": len(_start_texts(each.get("method", {}))),
        }
        for name, count in counts.items():
            if count:
                found[name] = found.get(name, 0) + count
    return found


def in_one_line(texts: Mapping[str, int]) -> str:
    """Say what texts there are.

    >>> in_one_line({"demonstrations": 4, "shown": 2}), in_one_line({})
    ('4 demonstrations, 2 shown', 'none')
    >>> in_one_line({"demonstrations": 1, "start texts": 1})
    '1 demonstration, 1 start text'
    """
    said = (counted(count, name.removesuffix("s"), name) for name, count in texts.items())
    return ", ".join(said) or "none"


def _start_texts(value: Any) -> Sequence[str]:
    if isinstance(value, Mapping):
        own = [each for name, each in value.items() if name in STARTS and each]
        return own + [text for each in value.values() for text in _start_texts(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in _start_texts(each)]
    return []


def without_start_texts(value: Any) -> Any:
    """Return a method's settings without the texts in them."""
    if isinstance(value, Mapping):
        kept = {name: None if name in STARTS else each for name, each in value.items()}
        return {name: without_start_texts(each) for name, each in kept.items()}
    return [without_start_texts(v) for v in value] if isinstance(value, list | tuple) else value


def without_texts(meta: Mapping[str, Any], task: Any) -> dict[str, Any]:
    """Return what a file says of its method and its data, without texts of rows.

    Raises UserError for a task whose answers need some.
    """
    check_without_texts(task)
    return {
        "method": without_start_texts(meta["method"]),
        "data": {**meta["data"], "demonstrations": [], "no_texts": True},
    }


def check_without_texts(task: Any) -> None:
    """Raise UserError for a task whose answers need the texts that its settings hold."""
    if getattr(task, "shown", None):
        raise UserError(
            "`no_texts`: the template shows rows at {demos:N}, so every answer needs their texts; "
            "leave that out of the template, or leave `no_texts` out"
        )
    if getattr(task, "catalogue", None):
        raise UserError(
            "`no_texts`: a ranking without candidates chooses from the answers of all rows, which "
            "are texts; give each row 'candidates', or leave `no_texts` out"
        )
