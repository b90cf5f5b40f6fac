"""Answers with the prompt in this folder: ``python run.py "a text"``, or ``< rows.jsonl``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from reading import PROMPT, TOKENIZER, asked, tokens

MODEL = Path(__file__).with_name("model.onnx")
SESSION = InferenceSession(MODEL, providers=["CPUExecutionProvider"])


def answer(row: dict[str, Any]) -> dict[str, str]:
    """Return the text that the model writes after a row of fields, token by token."""
    names = [each.name for each in SESSION.get_inputs()]
    past = [np.zeros((1, heads, 0, width), np.float32) for heads, width in PROMPT["past"]]
    ids, said = tokens(row), list[int]()
    while len(said) < PROMPT["max_new_tokens"]:
        logits, *past = SESSION.run(None, dict(zip(names, [[ids], *past], strict=True)))
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
    for row in asked():
        print(json.dumps(answer(row), ensure_ascii=False), flush=True)
