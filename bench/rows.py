"""Rows for the two tasks that no public set of rows in these shapes was at hand for.

    python bench/rows.py slots E2E/test.jsonl out/slots/test.jsonl
    python bench/rows.py responses SGD/test.jsonl out/responses/test.jsonl

``slots`` (multilabel): a sentence about a restaurant, and which attributes its meaning
representation names; the name, which all have, is left out. Where several sentences stand for one
meaning, the first is taken. ``responses`` (rank): the turns of a dialogue so far, and the reply
that came next.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foreword.data.read import read_rows
from foreword.data.shapes import canonical
from foreword.errors import UserError
from foreword.files import write_whole


def slots(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a sentence and the attributes that it is about."""
    names = re.findall(r"(?:^|, )([^\[\],]+)\[", fields["prompt"])
    return {"text": fields["completion"], "labels": [name for name in names if name != "name"]}


def responses(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a dialogue's turns as lines, and its last one."""
    *turns, reply = fields["messages"]
    lines = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return {"history": lines, "answer": reply["content"]}


SHAPES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "slots": slots,
    "responses": responses,
}
NEEDED = {"slots": "prompt,completion", "responses": "messages"}


def main(arguments: list[str]) -> None:
    """Write the rows of one file in another shape."""
    if len(arguments) != 3 or arguments[0] not in SHAPES:
        raise UserError(f"give one of {', '.join(SHAPES)}, a file of rows, and a file to write")
    shape, source, out = arguments
    found, rows = canonical(read_rows(source))
    if found != NEEDED[shape]:
        raise UserError(f"{source}: {shape} are made of rows of {NEEDED[shape]}")
    made = [SHAPES[shape](dict(row.fields)) for row in rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    write_whole(Path(out), lines.encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"bench: {error}")
