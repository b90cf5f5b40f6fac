"""What every task calls the right answer of a row, and whether an answer is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foreword.config.values import from_plain, plain
from foreword.data.row import Row
from foreword.tasks.answer import Answer
from foreword.tasks.base import Task
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.rank import Rank
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag
from toys import get

SAID = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "good"}]
LABELS = {"y": " good", "z": " bad"}
NAMED = {"text": "review", "label": "stars"}
CASES: list[tuple[Task, dict[str, Any], str, Any, Any, bool | None]] = [
    (Classify(), {"text": "a film", "label": "good"}, "a film", "good", "bad", False),
    (Multilabel(), {"text": "it", "labels": ["a", "b"]}, "it", ["a", "b"], ["a"], False),
    (Score(low=0, high=5), {"text": "it", "label": 2}, "it", 2.0, 2.0, None),
    (Tag(), {"tokens": ["a", "film"], "tags": ["X", "Y"]}, "a film", ["X", "Y"], ["X", "Y"], True),
    (Generate(), {"prompt": "a", "completion": "b"}, "a", "b", " b\n", True),
    (Generate(), {"prompt": "a", "completion": "b", "references": ["b", "c"]}, "a", ..., "c", True),
    (
        Answer(),
        {"context": "a film", "question": "what?", "answers": ["film"]},
        "a film\nwhat?",
        "film",
        "The film!",
        True,
    ),
    (Chat(), {"messages": SAID}, "a film", "good", "bad", False),
    (Rank(), {"history": "a", "candidates": ["b", "c"], "answer": 1}, "a", "c", "c", True),
]


@pytest.mark.parametrize(("task", "fields", "text", "gold", "answer", "right"), CASES)
def test_a_row_has_a_text_and_a_right_answer(
    task: Task, fields: dict[str, Any], text: str, gold: Any, answer: Any, right: bool | None
) -> None:
    row = Row(fields)
    more = {**fields, "label": "bad"} if isinstance(task, Classify) else fields
    bound = task.complete([row, Row(more)], get()).bind(get())
    assert bound.text_of(row) == text
    assert gold is ... or bound.gold_answer(row) == gold
    assert bound.is_right(row, answer) is right


@pytest.mark.parametrize(
    ("task", "fields", "named"),
    [
        (
            Classify(labels=LABELS),
            {"text": "x", "label": "y"},
            NAMED,
        ),
        (Score(low=0, high=5), {"text": "x", "label": 1}, NAMED),
        (Multilabel(), {"text": "x", "labels": ["y"]}, {"text": "review", "labels": "stars"}),
        (
            Tag(labels=LABELS),
            {"tokens": ["x"], "tags": ["y"]},
            {"tokens": "words", "tags": "stars"},
        ),
        (Generate(), {"prompt": "x", "completion": "y"}, {"prompt": "review", "completion": "st"}),
    ],
)
def test_a_task_reads_other_fields_where_its_settings_name_them(
    task: Task, fields: dict[str, Any], named: dict[str, str]
) -> None:
    """The template is the usual one, or the one given, with the other field in the same place."""
    other = Row({named[name]: value for name, value in fields.items()})
    (field, column), (_, answer) = named.items()
    assert task.text_setting is not None
    assert task.answer_setting is not None
    names = {task.text_setting: column, task.answer_setting: answer}
    for template in (None, f"It says: {{{field}}}\n"):
        if template is not None and isinstance(task, Tag):
            continue  # whose template names its field
        usual = replace(task, template=template).complete([Row(fields)], get())
        made = replace(task, template=template, **names).complete([other], get())
        assert made.template == (usual.template or "").replace(f"{{{field}}}", f"{{{column}}}")
        assert from_plain(type(made), plain(made), "") == made
        assert plain(usual).keys() - plain(made).keys() == set()
        assert made.bind(get()).gold_answer(other) == usual.bind(get()).gold_answer(Row(fields))
