"""Without a method, labels, rows and model decide what is tuned, and a line says why."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from families import ENCODERS, REACHED, backbone
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.methods import auto
from foreword.methods.auto import Auto
from foreword.methods.head import Head
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several, rebuild_method
from foreword.methods.prefix import Prefix
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.tag import Tag
from foreword.training.tune import tune

FAMILIES = {family.name: family for family in [*REACHED, *ENCODERS]}
NAMES = ("good", "bad", "fine", "film", "it", "was")


@cache
def get(name: str) -> Backbone:
    return backbone(FAMILIES[name])


def rows(labels: int, each: int) -> list[Row]:
    names = NAMES[:labels]
    fields = [{"text": f"a film {n}", "label": names[n % labels]} for n in range(labels * each)]
    return [Row(own, f"F:{n}") for n, own in enumerate(fields)]


def chosen(given: list[Row], name: str = "llama", task: Task | None = None) -> tuple[str, str]:
    method = Auto(Prefix(length=3))
    made = (task or Classify(template="{text}\nMood:")).complete(given, get(name))
    found, why = method.choose(made.bind(get(name)), given)
    return name_of(found), str(why)


@pytest.mark.parametrize(
    ("labels", "each", "name", "want", "why"),
    [
        (2, 8, "llama", "prefix", "2 labels, 16 rows: prefix, since label words score few labels"),
        (6, 8, "llama", "prefix+head", "6 labels, 48 rows: prefix+head, since a head scores many"),
        (6, 1, "llama", "prefix", "6 labels, 6 rows: prefix, since a head needs about 4 rows"),
        (2, 2, "bert-encoder", "prefix+head", "an encoder has no words to score them by"),
    ],
)
def test_labels_rows_and_model_decide(
    labels: int, each: int, name: str, want: str, why: str
) -> None:
    found, said = chosen(rows(labels, each), name)
    assert found == want
    assert why in said


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"loss": "vocabulary"}, "about label words"),
        ({"calibration": "contextual"}, "about label words"),
        (
            {"labels": {n: [f" {n}", f" {n}{n}"] for n in NAMES}},
            "several words",
        ),
        (
            {"labels": {n: f" {n}" for n in (*NAMES, "x")}},
            "rows of every label",
        ),
    ],
)
def test_label_words_stay_where_they_are_asked_for(settings: dict[str, Any], why: str) -> None:
    task = Classify(template="{text}\nMood:", **settings)
    found, said = chosen(rows(6, 8), task=task)
    assert found == "prefix"
    assert why in said


def test_other_tasks_have_a_prefix_and_no_line_but_tags_on_an_encoder() -> None:
    tags = [Row({"tokens": ["a", "film"], "tags": ["good", "bad"]}, "F:1")]
    texts = [Row({"prompt": "a", "completion": "b"}, "F:1")]
    assert chosen(tags, task=Tag(template="{tokens}")) == ("prefix", "None")
    assert chosen(texts, task=Generate()) == ("prefix", "None")
    found, why = chosen(tags, "bert-encoder", Tag())
    assert found == "prefix+head"
    assert why.startswith("2 labels, 1 row: prefix+head, since an encoder has no words")


def with_several(count: int) -> list[Row]:
    """Rows with the first name, the second, both, or neither."""
    fields = [
        {"text": f"a film {n}", "labels": [name for k, name in enumerate(NAMES[:2]) if n >> k & 1]}
        for n in range(count)
    ]
    return [Row(own, f"F:{n}") for n, own in enumerate(fields)]


@pytest.mark.parametrize(
    ("given", "name", "settings", "want", "why"),
    [
        (with_several(12), "llama", {}, "prefix+head", "2 labels, 12 rows: prefix+head, since a h"),
        (with_several(11), "llama", {}, "prefix", "a head needs about 4 rows of each label"),
        (with_several(12)[1::2], "llama", {}, "prefix", "a head needs rows with and without each"),
        (with_several(12), "bert-encoder", {}, "prefix+head", "an encoder has no words"),
        (with_several(12)[1::2], "bert-encoder", {}, "prefix+head", "an encoder has no words"),
        (
            with_several(12),
            "llama",
            {"labels": {n: [f" {n}", f" {n}{n}"] for n in NAMES[:2]}},
            "prefix",
            "several words",
        ),
    ],
)
def test_several_labels_have_a_head(
    given: list[Row], name: str, settings: dict[str, Any], want: str, why: str
) -> None:
    task = Multilabel(template="{text}\nMood:", none="it", **settings)
    found, said = chosen(given, name, task)
    assert found == want
    assert why in said


def test_a_setting_of_a_head_asks_for_one_and_a_rate_is_for_a_prefix_alone() -> None:
    given = rows(2, 8)
    task = Classify(template="{text}\nMood:").complete(given, get("llama")).bind(get("llama"))
    assert Auto(head=Head(head_start="ridge")).choose(task, given)[0] == Several(
        (Prefix(), Head(head_start="ridge"))
    )
    assert Auto(Prefix(shots=3), Head(shots=3)).choose(task, given)[0] == Prefix(shots=3)
    assert Auto(rate_alone=1e-2).choose(task, given)[0] == Prefix(rate=1e-2)
    assert Auto(Prefix(rate=0.5), rate_alone=1e-2).choose(task, given)[0] == Prefix(rate=0.5)
    assert Auto(Prefix(rate=0.5), Head(rate=0.5)).choose(task, given)[0] == Prefix(rate=0.5)


def test_few_rows_on_an_encoder_have_a_head_beside_lora_where_peft_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, few, many = get("bert-encoder"), rows(2, 8), rows(2, 160)
    task = Classify(template="{text}").complete(few, base).bind(base)
    found, why = Auto().choose(task, few)
    assert found == Several((Lora(), Head(head_start="logistic")))
    assert why is not None
    assert "lora+head, since it scores best on an encoder and few rows" in why
    assert Auto().choose(task, many)[0] == Several((Prefix(length=4), Head()))
    fast = Auto(Prefix(rate=0.5), Head(rate=0.5))
    assert fast.choose(task, few)[0] == Several(
        (Lora(rate=0.5), Head(rate=0.5, head_start="logistic"))
    )
    assert fast.choose(task, many)[0] == Several((Prefix(rate=0.5, length=4), Head(rate=0.5)))
    assert Auto(Prefix(length=3)).choose(task, few)[0] == Several((Prefix(length=3), Head()))
    tags = [Row({"tokens": ["it", "was"], "tags": ["good", "bad"]}, "F:1")]
    tagged = Tag().complete(tags, base).bind(base)
    assert Auto().choose(tagged, tags)[0] == Several((Lora(), Head(head_start="logistic")))
    named = Tag(labels={name: name for name in NAMES}).complete(tags, base).bind(base)
    assert Auto().choose(named, tags)[0] == Several((Lora(), Head()))  # as labels lack rows
    assert Auto().choose(tagged, tags * 300)[0] == Several((Prefix(length=4), Head()))
    monkeypatch.setattr(auto, "has_peft", lambda: False)
    found, why = Auto().choose(task, few)
    assert found == Several((Prefix(length=4), Head()))
    assert why is not None
    assert "needs pip install 'foreword[peft]'" in why


def test_the_file_holds_what_was_chosen_and_a_line_says_why(tmp_path: Path) -> None:
    heard: list[str] = []

    class Hearing(Reporter):
        def line(self, text: str) -> None:
            heard.append(text)

    base = get("llama")
    made = tune(base, train=rows(6, 8), dev=rows(6, 1), epochs=1, length=3, report=Hearing())
    assert any(line.startswith("6 labels, 48 rows: prefix+head, since") for line in heard)
    file = made.save(tmp_path / "p.safetensors")
    method = rebuild_method(Prompt.load(file, base).method, "")
    want = Several(
        (
            Prefix(length=3, start="demonstrations"),
            Head(head_start="prototypes", head_form="linear"),
        )
    )
    assert method == want
    by_name = tune(base, "classify", "prefix+head", rows(6, 8), rows(6, 1), epochs=1, length=3)
    again = by_name.save(tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()
