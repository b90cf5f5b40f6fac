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
    """Return the answer to a row of fields, with the probability of every label where it has."""
    ids, slot = tokens(row)
    known = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "slot": [slot]}
    given = {each.name: np.array(known[each.name], np.int64) for each in SESSION.get_inputs()}
    (chances,) = SESSION.run(None, given)[0].tolist()
    by_label = dict(zip(PROMPT["labels"], chances, strict=True))
    if PROMPT["answer"] == "labels":
        limits = zip(PROMPT["labels"], chances, PROMPT["thresholds"], strict=True)
        return {"labels": [n for n, p, low in limits if p >= low], "probabilities": by_label}
    if PROMPT["answer"] == "score":
        return {
            "score": sum(p * number for p, number in zip(chances, PROMPT["numbers"], strict=True))
        }
    return {"label": max(by_label, key=by_label.__getitem__), "probabilities": by_label}


if __name__ == "__main__":
    asked = sys.argv[1:]
    rows = [{PROMPT["fields"][0]: text} for text in asked] or map(json.loads, sys.stdin)
    for row in rows:
        print(json.dumps(answer(row), ensure_ascii=False), flush=True)
