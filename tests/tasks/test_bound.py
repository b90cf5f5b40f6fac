"""A task on a backbone: its variants, and what it reads once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.rank import Rank
from foreword.tasks.relate import Relate
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag
from foreword.tasks.templates import demonstrations
from toys import get

WORDS = {"good": " good", "bad": " bad", "none": " it"}
LABELLED: dict[str, tuple[Task, dict[str, Any]]] = {
    "classify": (Classify("{text} [soft:2]:", WORDS), {"text": "a film", "label": "bad"}),
    "relate": (
        Relate("{text} [soft:2]{head} and {tail} are", WORDS),
        {"text": "it was", "head": "it", "tail": "was", "label": "good"},
    ),
    "multilabel": (Multilabel("{text} [soft:2]:", WORDS), {"text": "a film", "labels": ["bad"]}),
    "tag": (
        Tag("{tokens}[soft:2]", "\n{word}:", WORDS),
        {"tokens": ["it", "was"], "tags": ["good", "bad"]},
    ),
    "score": (
        Score("{text} [soft:2]:", anchors={" bad": 0.0, " good": 1.0}),
        {"text": "a film", "label": 0.25},
    ),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_a_head_and_no_prompt_come_in_any_order(kind: str) -> None:
    task, fields = LABELLED[kind]
    bound, row = task.bind(get()), Row(fields, "F:1")
    assert bound.virtual == 2
    assert bound.tokens is not None
    one, other = bound.with_head().without_prompt(), bound.without_prompt().with_head()
    for variant in (one, other):
        assert variant.headed
        assert variant.tokens is None  # a head scores classes and no tokens
        assert variant.virtual == 0
    assert one.train_example(row, 100) == other.train_example(row, 100)
    assert one.dev_example(row, 100) == other.dev_example(row, 100)
    assert one.zero_shot().tokens == bound.tokens
    assert one.zero_shot().dev_example(row, 100) == bound.without_prompt().dev_example(row, 100)
    assert bound.tokens is not None  # variants are copies
    assert bound.virtual == 2


@pytest.mark.parametrize("task", [Rank("{history}\n"), Generate("{prompt}\n")])
def test_a_task_without_classes_has_no_head(task: Task) -> None:
    assert task.class_names == ()
    with pytest.raises(UserError, match="no classes for a head"):
        task.bind(get()).with_head()


@pytest.mark.parametrize("kind", LABELLED)
def test_classes_are_as_many_as_their_names(kind: str) -> None:
    task, _ = LABELLED[kind]
    assert len(task.class_names) == task.bind(get()).classes
    assert task.class_names == (("0", "1") if kind == "score" else ("bad", "good", "none"))


def test_the_rows_to_show_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = demonstrations.mean_states

    def counted(backbone: Backbone, texts: Sequence[str], *more: Any) -> Tensor:
        read.append(len(texts))
        return original(backbone, texts, *more)

    monkeypatch.setattr(demonstrations, "mean_states", counted)
    shown = [{"text": f"film {n}", "label": ("good", "bad")[n % 2]} for n in range(12)]
    task = Classify("{demos:2}{text} [soft:2]:", WORDS, demos="nearest", shown=shown)
    bound = task.bind(get()).without_prompt()
    for text in ("a film", "it was", "bad"):
        bound.predict([Row({"text": text}, "F:1")], NOTHING)
    assert read == [12, 1, 1, 1]
    bound.with_head().dev_example(Row({"text": "film 3", "label": "bad"}, "F:1"), 200)
    assert read == [12, 1, 1, 1]  # nor by a variant, nor a row that is among them
