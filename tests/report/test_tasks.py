"""A page for every task and every architecture; what does not apply says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import foreword as fw
from families import ENCODERS, backbone
from foreword.report.left_out import LeftOut
from foreword.report.report import USUAL
from foreword.reporter import SILENT
from toys import WORDS, get

CANDIDATES = ["good", "bad", "film"]


def mood(n: int) -> str:
    return ("good", "bad")[n % 2]


def said(n: int) -> str:
    return f"{WORDS[n % 5]} {mood(n)} film {WORDS[n // 5 % 5]} {n}"


def tags(n: int) -> list[str]:
    return ["B-X" if word in ("good", "bad") else "O" for word in said(n).split()]


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "classify": lambda n: {"text": said(n), "label": mood(n)},
    "multilabel": lambda n: {"text": said(n), "labels": [mood(n)] if n % 3 else ["good", "bad"]},
    "relate": lambda n: {"text": said(n), "head": "film", "tail": mood(n), "label": mood(n)},
    "tag": lambda n: {"tokens": said(n).split(), "tags": tags(n)},
    "score": lambda n: {"text": said(n), "label": float(n % 5)},
    "generate": lambda n: {"prompt": said(n), "completion": f"{mood(n)} film"},
    "translate": lambda n: {"source": said(n), "target": f"{mood(n)} film"},
    "summarize": lambda n: {"text": said(n), "summary": mood(n)},
    "answer": lambda n: {"context": said(n), "question": "it was", "answers": [mood(n)]},
    "chat": lambda n: {
        "messages": [
            {"role": "user", "content": said(n)},
            {"role": "assistant", "content": mood(n)},
        ]
    },
    "rank": lambda n: {"history": [said(n), "film"], "candidates": CANDIDATES, "answer": mood(n)},
}
WRITTEN = ("generate", "translate", "summarize", "answer", "chat")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model"),
    [
        *((task, "llama") for task in ROWS),
        *(("classify", name) for name in ("bert", "t5", "encoder")),
        *(("generate", "t5"), ("score", "encoder"), ("tag", "bert")),
    ],
)
def test_every_task_has_a_page(task: str, model: str) -> None:
    base = backbone(ENCODERS[0]) if model == "encoder" else get(model)
    rows = [ROWS[task](n) for n in range(24)]
    how: dict[str, Any] = {"max_new_tokens": 4} if task in WRITTEN else {}
    if task == "translate":
        how |= {"source_field": "source", "target_field": "target"}
    method = "head" if model == "encoder" else fw.Soft(length=2)
    given = {"train": rows[:16], "dev": rows[16:], "epochs": 1, "report": SILENT}
    prompt = fw.tune(base, task, method, **given, **how)
    sections = [*USUAL, "explanation"]
    page = prompt.report(rows, train=rows[:16], shifted=rows[:8], sections=sections, report=SILENT)
    shown = page.to_html()
    (chapter,) = page.chapters
    assert "Is it good?" in shown
    labelled = task in ("classify", "multilabel", "relate", "tag")
    assert isinstance(chapter.changes.labels, LeftOut) != labelled
    assert isinstance(chapter.cost.perplexities, LeftOut) == (model == "encoder")
    for part in (chapter.changes.calibration, chapter.changes.confusion):
        assert not isinstance(part, LeftOut) or part.reason in shown
