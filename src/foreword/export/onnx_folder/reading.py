"""How run.py reads rows: fields of text become token ids, as prompt.json says."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

PROMPT = json.loads(Path(__file__).with_name("prompt.json").read_text("utf-8"))
TOKENIZER = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))


def asked() -> Iterable[dict[str, str]]:
    """Return the rows that a command names: its arguments, or else lines of JSON."""
    texts = sys.argv[1:]
    return [{PROMPT["fields"][0]: text} for text in texts] or map(json.loads, sys.stdin)


def tokens(row: dict[str, str]) -> list[int]:
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


def value(row: dict[str, str], field: str, left: bool, right: bool) -> str:
    """Return the text of a field, without white space where the template takes it off."""
    if not isinstance(row.get(field), str):
        sys.exit(f"a row has no text '{field}'")
    text = row[field].lstrip() if left else row[field]
    return text.rstrip() if right else text
