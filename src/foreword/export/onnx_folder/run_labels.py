"""Answers with the prompt in this folder: ``python run.py "a text"``, or ``< rows.jsonl``."""

import json
from pathlib import Path
from typing import Any

from onnxruntime import InferenceSession
from reading import PROMPT, asked, tokens

MODEL = Path(__file__).with_name("model.onnx")
SESSION = InferenceSession(MODEL, providers=["CPUExecutionProvider"])


def answer(row: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a row of fields, with the probability of every label where it has."""
    (numbers,) = SESSION.run(None, {"input_ids": [tokens(row)]})[0].tolist()
    found = dict(zip(PROMPT["numbers"], numbers, strict=True))
    if PROMPT["answer"] == "score":
        return found
    if PROMPT["answer"] == "labels":
        labels = [name for name, least in PROMPT["thresholds"].items() if found[name] >= least]
        return {"labels": labels, "probabilities": found}
    return {"label": max(found, key=lambda name: found[name]), "probabilities": found}


if __name__ == "__main__":
    for row in asked():
        print(json.dumps(answer(row), ensure_ascii=False), flush=True)
