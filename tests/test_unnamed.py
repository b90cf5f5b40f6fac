"""Rows, a task and a model, and nothing else named: what most people run first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import foreword as fw
from families import CAUSAL, ENCODERS, backbone
from foreword.backbone.backbone import Backbone
from foreword.reporter import SILENT

FAMILIES = {family.name: family for family in [*CAUSAL, *ENCODERS]}
NAMES = ("good", "bad", "fine")
WORDS = ("film", "it", "was", "and", "a", "good", "bad", "fine")
COUNT = 12


def turns(n: int) -> list[dict[str, str]]:
    """A question and an answer."""
    said = {"user": f"a film {n}", "assistant": f"it was {WORDS[n % 8]}"}
    return [{"role": role, "content": text} for role, text in said.items()]


Fields = Callable[[int], Mapping[str, Any]]
LABELLED: dict[str, Fields] = {
    "classify": lambda n: {"text": f"a film {n}", "label": NAMES[n % 3]},
    "classify two texts": lambda n: {
        "text_a": f"a film {n}",
        "text_b": f"it {n}",
        "label": NAMES[n % 2],
    },
    "multilabel": lambda n: {
        "text": f"a film {n}",
        "labels": [name for place, name in enumerate(NAMES) if n >> place & 1],
    },
    "relate": lambda n: {
        "text": f"a film {n} was it",
        "head": "film",
        "tail": "it",
        "label": NAMES[n % 2],
    },
    "tag": lambda n: {"tokens": ["a", "film", str(n)], "tags": [NAMES[n % 2], "good", "bad"]},
    "score": lambda n: {"text": f"a film {n}", "label": float(n % 5)},
    "score two texts": lambda n: {
        "text_a": f"a film {n}",
        "text_b": f"it {n}",
        "label": float(n % 5),
    },
    "rank": lambda n: {"history": [f"a film {n}"], "answer": f"it was {WORDS[n % 8]} {n}"},
}
WRITTEN: dict[str, Fields] = {
    "generate": lambda n: {"prompt": f"a film {n}", "completion": f"it was {WORDS[n % 8]}"},
    "translate": lambda n: {"en": f"a film {n}", "de": f"it was {WORDS[n % 8]}"},
    "summarize": lambda n: {"text": f"a film {n}", "summary": f"it was {WORDS[n % 8]}"},
    "answer": lambda n: {"context": f"film {n} was good", "question": "it", "answers": ["good"]},
    "chat": lambda n: {"messages": turns(n)},
}
CASES = [
    *(("llama", name, fields) for name, fields in {**LABELLED, **WRITTEN}.items()),
    *(("bert-encoder", name, fields) for name, fields in LABELLED.items()),
]


@cache
def get(family: str) -> Backbone:
    return backbone(FAMILIES[family])


@pytest.mark.parametrize(
    ("family", "name", "fields"), CASES, ids=[f"{family} {name}" for family, name, _ in CASES]
)
def test_few_rows_and_nothing_else(family: str, name: str, fields: Fields, tmp_path: Path) -> None:
    task = name.split()[0]
    rows = fw.as_rows([dict(fields(n)) for n in range(COUNT)])
    more = {"max_new_tokens": 3} if name in WRITTEN else {}
    more |= {"source_field": "en", "target_field": "de"} if name == "translate" else {}
    made = fw.tune(get(family), task, train=rows, report=SILENT, **more)
    prompt = fw.Prompt.load(made.save(tmp_path / "p.safetensors"), get(family))
    answers = prompt.predict(rows)
    assert len(answers) == COUNT
    assert answers == made.predict(rows)
    assert fw.evaluate(prompt, rows, report=SILENT).rows
    if name == "chat":
        said = {"messages": [{"role": "user", "content": "a film"}]}
        assert prompt.predict("a film") == prompt.predict(said)
