"""Answers with the prompt in this folder; needs onnxruntime and tokenizers, and nothing else.

``python run.py "a text" "another"``, or ``python run.py < rows.jsonl`` with an object of fields a
line. One answer a line, in JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).parent
PROMPT = json.loads((HERE / "prompt.json").read_text("utf-8"))
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))
SESSION = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])


def tokens(row: dict[str, str]) -> tuple[list[int], int]:
    """Return the token ids of a row of fields, and where among them the answer stands."""
    ids: list[int] = []
    slot, first = 0, PROMPT["first"]
    for piece in PROMPT["pieces"]:
        if piece["kind"] == "slot":
            slot = len(ids)
        elif piece["kind"] == "virtual":
            ids += piece["ids"]
        else:
            text = "".join(p if isinstance(p, str) else value(row, **p) for p in piece["parts"])
            text = text.rstrip(" ") if piece["bare"] else text
            ids += TOKENIZER.encode(text, add_special_tokens=False).ids
    begun = PROMPT["text_first"] and bool(first) and ids[: len(first)] == first
    ids, slot = (ids[len(first) :], slot - len(first)) if begun else (ids, slot)
    head = first if begun or not PROMPT["chat"] else []
    if (size := len(head) + len(ids) + len(PROMPT["last"])) > PROMPT["limit"]:
        raise SystemExit(f"a row takes {size} tokens, of at most {PROMPT['limit']}; shorten it")
    head = [] if PROMPT["behind"] and ids else head
    return [*head, *ids, *PROMPT["last"]], len(head) + slot


def value(row: dict[str, str], field: str, left: bool, right: bool) -> str:
    """Return the text of a field as the template shows it."""
    if not isinstance(row.get(field), str):
        raise SystemExit(f"a row has no text '{field}'")
    text = row[field].lstrip() if left else row[field]
    return text.rstrip() if right else text


def answer(row: dict[str, str]) -> dict[str, Any]:
    """Return the text that the model writes after a row of fields, token by token."""
    said: list[int] = []
    ids, past = tokens(row)[0], []
    for each in SESSION.get_inputs()[1:]:
        past.append(np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32))
    names = [each.name for each in SESSION.get_inputs()]
    while len(said) < PROMPT["max_new_tokens"]:
        given = dict(zip(names, [np.array([ids], np.int64), *past], strict=True))
        logits, *past = SESSION.run(None, given)
        ids = [int(logits[0, : PROMPT["vocabulary"]].argmax())]
        if ids[0] in PROMPT["ends"]:
            break
        said += ids
        if any(stop in TOKENIZER.decode(said) for stop in PROMPT["stop"]):
            break
    text = TOKENIZER.decode(said)
    text = text[: min([text.find(stop) for stop in PROMPT["stop"] if stop in text], default=None)]
    return {"text": text.strip().removeprefix(PROMPT["opening"]).strip()}


if __name__ == "__main__":
    asked = sys.argv[1:]
    rows = [{PROMPT["fields"][0]: text} for text in asked] or map(json.loads, sys.stdin)
    for row in rows:
        print(json.dumps(answer(row), ensure_ascii=False), flush=True)
