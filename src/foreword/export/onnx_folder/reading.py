"""How run.py reads rows: fields of text become token ids, as prompt.json says."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

PROMPT = json.loads(Path(__file__).with_name("prompt.json").read_text("utf-8"))
TOKENIZER = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))


def asked() -> Iterator[dict[str, Any]]:
    """Yield the rows that a command names: its arguments, or else lines of JSON."""
    texts = sys.argv[1:]
    yield from ({PROMPT["fields"][0]: text} for text in texts)
    for number, line in enumerate(() if texts else sys.stdin, start=1):
        if text := line.removeprefix("\ufeff").strip():
            yield parsed(text, number)


def parsed(text: str, number: int) -> dict[str, Any]:
    """Return the row that a line is."""
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        sys.exit(f"line {number} is no object in JSON; write one with {PROMPT['fields']}")
    return row


def tokens(row: dict[str, Any]) -> list[int]:
    """Return the token ids of a row."""
    ids: list[int] = []
    for piece in PROMPT["pieces"]:
        if "ids" in piece:
            ids += piece["ids"]
        else:
            parts = [p if isinstance(p, str) else value(row, **p) for p in piece["text"]]
            text = "".join(parts).rstrip(piece["end"])
            ids += TOKENIZER.encode(text, add_special_tokens=False).ids
    first = PROMPT["first"]
    if ids[: len(first)] == first:  # the row writes them itself, and they stand once
        ids = ids[len(first) :]
    ids = PROMPT["head"] + ids or first
    if len(ids) > PROMPT["limit"]:
        sys.exit(f"a row takes {len(ids)} tokens, of at most {PROMPT['limit']}; shorten it")
    return ids


def value(row: dict[str, Any], field: str, left: bool, right: bool) -> str:
    """Return the text of a field, without white space where the template takes it off."""
    if not isinstance(row.get(field), str | int | float):  # numbers are read as text
        sys.exit(f"a row has no text '{field}'")
    text = str(row[field]).lstrip() if left else str(row[field])
    return text.rstrip() if right else text
