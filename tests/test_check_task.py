"""Rows checked for a task on a model: what is refused is what a training refuses, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import foreword as fw
from families import by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.data.rows import as_rows
from foreword.errors import UserError
from foreword.reporter import SILENT
from foreword.tasks.base import Task
from foreword.tasks.rules import rules_of
from foreword.training.check import check_for
from foreword.training.prepare import prepare
from toys import get

GOOD: dict[str, tuple[Task, list[dict[str, Any]]]] = {
    "classify": (fw.Classify(), [{"text": f"film {n}", "label": "ab"[n % 2]} for n in range(4)]),
    "score": (fw.Score(), [{"text": f"film {n}", "label": n} for n in range(4)]),
    "multilabel": (
        fw.Multilabel(),
        [{"text": f"film {n}", "labels": ["a", "b"][: n % 3]} for n in range(4)],
    ),
    "tag": (fw.Tag(), [{"tokens": ["a", "film"], "tags": ["O", "XY"[n % 2]]} for n in range(4)]),
    "relate": (
        fw.Relate(),
        [
            {"text": f"a film {n}", "head": "a", "tail": "film", "label": "xy"[n % 2]}
            for n in range(4)
        ],
    ),
    "generate": (fw.Generate(), [{"prompt": f"say {n}", "completion": "it"} for n in range(4)]),
    "summarize": (fw.Summarize(), [{"prompt": f"say {n}", "completion": "it"} for n in range(4)]),
    "answer": (
        fw.Answer(),
        [{"context": f"a film {n}", "question": "what?", "answers": ["film"]} for n in range(4)],
    ),
    "rank": (
        fw.Rank(),
        [{"history": f"h {n}", "candidates": ["a", "b"], "answer": "a"} for n in range(4)],
    ),
}
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "no text": ("classify", {"text": " "}),
    "no label": ("classify", {"label": None}),
    "a label in a list": ("classify", {"label": ["a"]}),
    "no number": ("score", {"label": "high"}),
    "true for a number": ("score", {"label": True}),
    "labels that are numbers": ("multilabel", {"labels": [1]}),
    "a label twice": ("multilabel", {"labels": ["a", "a"]}),
    "none among labels": ("multilabel", {"labels": ["none"]}),
    "fewer tags than words": ("tag", {"tags": ["O"]}),
    "a blank tag": ("tag", {"tags": ["O", " "]}),
    "a head that is not there": ("relate", {"head": "book"}),
    "no completion": ("generate", {"completion": ""}),
    "references that are a text": ("summarize", {"references": "it"}),
    "an answer that is not there": ("answer", {"answers": ["book"]}),
    "one candidate": ("rank", {"candidates": ["a"]}),
    "half a character": ("generate", {"prompt": "\ud83d"}),
}


def refusal(task: Task, rows: list[dict[str, Any]]) -> str | None:
    """What a training says."""
    try:
        prepare(get(), task, fw.Soft(length=1), rows, rows[:2], fw.Training(), SILENT)
    except UserError as error:
        return str(error)
    return None


def refused(checked: fw.Checked, split: str = "train") -> tuple[str, ...]:
    return next((p.places for p in checked.problems if (p.kind, p.split) == ("refused", split)), ())


@pytest.mark.parametrize("name", GOOD)
def test_rows_that_a_training_takes_are_not_refused(name: str) -> None:
    task, rows = GOOD[name]
    assert refusal(task, rows) is None
    assert refused(fw.check(rows, task=task, model=get())) == ()
    plain = {n: v for n, v in vars(task).items() if n == "template"}
    for row in as_rows(rows):
        rules_of(name, plain).checked(row)


@pytest.mark.parametrize("case", WRONG)
def test_what_a_training_refuses_is_refused_in_its_words(case: str) -> None:
    name, change = WRONG[case]
    task, rows = GOOD[name]
    wrong = [*rows[:2], {**rows[2], **change}, *rows[3:]]
    said = refusal(task, wrong)
    assert said is not None
    told = refused(fw.check(wrong, task=task, model=get()))
    assert [place.removeprefix("train ") for place in told] == [said]
    assert refused(fw.check(rows, wrong, task=task, model=get()), "dev") != ()


def test_every_row_is_named_and_the_others_are_checked_all_the_same() -> None:
    task, rows = GOOD["score"]
    wrong = [{**rows[0], "label": "x"}, *rows, {"text": "", "label": 1}, {**rows[0], "label": "y"}]
    told = refused(fw.check(wrong, task=task, model=get()))
    assert [place.split(":")[0] for place in told] == ["train row 1", "train row 7", "train row 6"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"labels": {"a": " film", "b": " film"}}, "share the word"),
        ({"labels": {"a": " film"}}, "at least two labels"),
        ({"template": "{txt}"}, "no field 'txt', which the template asks for"),
        ({"template": "{text"}, "column 1: a stray"),
        ({"template": "{text} [mask] x"}, "text after [mask] is never seen"),
        ({"headline": "bleu"}, "`headline=bleu`: unknown"),
        ({"template": "film " * 40 + "{text}", "max_length": 8}, "the template alone takes"),
    ],
)
def test_settings_that_a_training_refuses(settings: dict[str, Any], why: str) -> None:
    _, rows = GOOD["classify"]
    said = refusal(fw.Classify(**settings), rows)
    assert said is not None
    told = refused(fw.check(rows, model=get(), **settings))
    assert why in told[0]
    assert told[0].removeprefix("train ") == said


def test_rows_that_are_cut_and_classes_of_few_rows() -> None:
    rows = [{"text": "film " * (3 * n + 1), "label": "ab"[n > 0]} for n in range(6)]
    told = fw.check(rows, model=get(), template="{text} :", max_length=9)
    places = {each.kind: each.places for each in told.problems if each.split == "train"}
    encoded = [
        fw.Classify("{text} :", {"a": " good", "b": " bad"}, max_length=9)
        .bind(get())
        .train_example(row, 999)
        for row in as_rows([{**row, "label": "a"} for row in rows])
    ]
    cut = [f"train row {n}" for n, each in enumerate(encoded, 1) if each.truncated]
    assert 0 < len(cut) < 6
    assert list(places["cut"]) == cut
    assert places["few rows of a class"] == ("'a' has 1",)


@pytest.mark.parametrize(
    ("task", "one", "other"),
    [
        (fw.Generate(), {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c"}),
        (fw.Score(), {"text": "a", "label": 1}, {"text": "a", "label": 2}),
    ],
)
def test_other_answers_that_are_no_classes_are_no_conflict(
    task: Task, one: dict[str, Any], other: dict[str, Any]
) -> None:
    told = fw.check([one, other, {**one, next(iter(one)): "d"}], task=task, model=get())
    assert told.problems == []
    assert "labels" not in told.splits["train"]


@pytest.mark.parametrize("name", by_mechanism(["llama", "gpt2", "qwen3_moe", "gpt_oss"]))
def test_a_model_by_name_is_opened_without_its_weights(name: str, tmp_path: Path) -> None:
    base = get(name)
    base.model.save_pretrained(tmp_path)
    base.text.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    outline = Backbone.outline(str(tmp_path))
    assert (outline.longest, outline.vocabulary) == (base.longest, base.vocabulary)
    assert (outline.window, list(outline.sites)) == (base.window, list(base.sites))
    assert outline.device.type == "meta"
    task, rows = GOOD["classify"]
    assert fw.check(rows, task=task, model=tmp_path) == fw.check(rows, task=task, model=base)
    with pytest.raises(UserError, match="`length` is no setting of the task"):
        fw.check(rows, length=3)


def test_a_model_that_cannot_be_looked_at_without_numbers_is_opened_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = get()
    base.model.save_pretrained(tmp_path)
    base.text.tokenizer.save_pretrained(tmp_path)

    def asks(self: Any, *given: Any, **options: Any) -> Any:
        self.embed_tokens.weight.sum().item()
        return forward(self, *given, **options)

    kind = type(base.model.base_model)
    forward = kind.forward
    task, rows = GOOD["classify"]
    expected = fw.check(rows, task=task, model=base)
    monkeypatch.setattr(kind, "forward", asks)
    assert fw.check(rows, task=task, model=tmp_path) == expected


def test_what_needs_the_models_answers_is_left_out() -> None:
    task = fw.Classify("{demos:2}{text} :", verbalizer="search", demos="nearest")
    splits = {"train": as_rows(GOOD["classify"][1])}
    assert refused(check_for(task, get(), splits)) == ()
