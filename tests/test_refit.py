"""A run made once more on all rows, and names of labels as rows."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import contract
import foreword as fw
import oracles
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.sample import hold_out
from foreword.errors import UserError
from foreword.methods.base import Method, settle
from foreword.methods.context import Context
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT, Reporters
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.tag import Tag
from foreword.training import checkpoint
from foreword.training.log import log_path
from foreword.training.prepare import DEV_SHARE, build_run
from foreword.training.settings import Training
from foreword.training.tune import tune
from test_resume import stopped_run
from toys import TASK, TRAINING, Counts, Lines, get, rows, scripted, toy_run

REFIT = replace(TRAINING, refit="on")
OUT = "p.safetensors"
SCORES = [10.0, 20.0, 30.0, 40.0]
"""Dev scores by which the last step is the best."""


def tensors(prompt: Prompt) -> Mapping[str, Tensor]:
    return dict(prompt.injection.tensors())


def alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def on_all(prompt: Prompt, given: list[Row], training: Training, **changes: Any) -> Any:
    """A run on rows that keeps its last step, made here."""
    method = settle(changes.get("method", Soft(length=3)), prompt.bound, given)
    _, _, run = build_run(get(), prompt.bound.task, method, given, (), training, SILENT)
    return run


def test_a_second_run_learns_all_rows_and_keeps_its_last_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, SCORES)
    first = toy_run(None, dev=None, train=rows(20))
    scripted(monkeypatch, SCORES)
    found = toy_run(None, dev=None, train=rows(20), training=REFIT)
    assert found.scores == first.scores == {"dev": {"accuracy": 40.0, "rows": 2}}
    assert found.data["train"] == first.data["train"]
    assert found.data["dev"] == first.data["dev"]
    seen = len(b64decode(found.data["marks"])) / len(b64decode(first.data["marks"]))
    assert seen == pytest.approx(20 / 18, abs=0.02)  # dev rows are known as seen, too
    train, held = hold_out(rows(20), DEV_SHARE, 0, by="label")
    run = on_all(found, [*train, *held], TRAINING)
    run.go(SILENT)
    assert run.scores == ()
    with torch.no_grad():
        assert alike(tensors(found), dict(run.trainable().tensors()))
    assert not alike(tensors(found), tensors(first))


def test_the_dev_score_is_that_of_the_last_step_and_not_of_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, [50.0, 20.0, 30.0, 40.0])
    best = toy_run(None, dev=None, train=rows(20))
    scripted(monkeypatch, [50.0, 20.0, 30.0, 40.0])
    found = toy_run(None, dev=None, train=rows(20), training=REFIT)
    assert best.scores["dev"]["accuracy"] == 50
    assert found.scores["dev"]["accuracy"] == 40  # the second run keeps its last step too
    train, held = hold_out(rows(20), DEV_SHARE, 0, by="label")
    run = on_all(found, [*train, *held], TRAINING)
    run.go(SILENT)
    with torch.no_grad():
        assert alike(tensors(found), dict(run.trainable().tensors()))


def test_a_run_that_lost_its_patience_has_as_many_epochs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient = replace(TRAINING, epochs=8, patience=2, refit="on")
    scripted(monkeypatch, [10.0, 30.0, 20.0, 25.0, 90.0])
    found = toy_run(None, training=impatient)
    given = [*rows(12), *rows(6, 100, "dev.jsonl")]
    run = on_all(found, given, replace(TRAINING, epochs=3))
    run.go(SILENT)
    with torch.no_grad():
        assert alike(tensors(found), dict(run.trainable().tensors()))


def test_the_second_run_shows_how_far_it_is_and_leaves_the_log_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, SCORES)
    said: list[str] = []
    counts = Counts()
    toy_run(tmp_path / OUT, training=REFIT, report=Reporters([Lines(said), counts]))
    assert "training once more, on all 18 rows" in said
    steps, moved = counts.heard["once more, on all 18 rows"]
    assert steps == sum(moved) == 15
    log = [json.loads(line) for line in log_path(tmp_path / OUT).read_text("utf-8").splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.log.jsonl", OUT]


PLACES = {
    "in the first run": (checkpoint, "write", 2, True),
    "before the second run": (checkpoint, "write", 4, True),
    "in the second run": (checkpoint, "write", 6, True),
    "before the prompt is saved": (Prompt, "save", 1, False),
    "before the checkpoints are removed": (checkpoint, "remove", 4, False),
    "between their removals": (checkpoint, "remove", 5, False),
}


@pytest.mark.parametrize("place", PLACES)
def test_both_runs_go_on_where_they_were_stopped(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_run(tmp_path / "whole.safetensors", training=REFIT)
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, *PLACES[place], training=REFIT)
    left = [path.name for path in tmp_path.iterdir() if path.name.endswith(".checkpoint")]
    assert left
    assert (f".{OUT}.refit.checkpoint" in left) == ("first run" not in place != list(PLACES)[1])
    toy_run(out, training=REFIT, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_run_begun_anew_forgets_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, *PLACES["in the second run"], training=REFIT)
    toy_run(out)
    assert not list(tmp_path.glob(".*"))


def test_what_is_fitted_to_dev_rows_is_of_the_run_that_had_not_learned_them() -> None:
    task = fw.Multilabel(template="{text} :", labels=TASK.labels)
    given = [Row({**row.fields, "labels": [row.fields["label"]]}, row.where) for row in rows(40)]
    fast = replace(TRAINING, rate=0.3)
    first, found = (
        toy_run(None, task=task, dev=None, train=given, training=replace(fast, refit=how))
        for how in ("off", "on")
    )
    _, held = hold_out(given, DEV_SHARE, 0)
    open_task = replace(found.task, thresholds=None).bind(get())
    assert found.task == first.task == open_task.fit_on_dev(held, first.injection)
    assert found.task != open_task.fit_on_dev(held, found.injection)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"refit": "always"}, "setting 'refit' is 'always'"),
        ({"label_rows": "yes"}, "setting 'label_rows' is 'yes'"),
        ({"refit": "on", "schedule": "plateau"}, "give one of the two"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        toy_run(None, training=replace(TRAINING, **changes))


# On an encoder ------------------------------------------------------------------------------------

ENCODER = Classify(template="{text}")
HEADED = Several((Prefix(length=2), Head(head_start="logistic")))


def test_few_rows_on_an_encoder_are_all_learned_and_names_beside_them() -> None:
    given, how = contract.ROWS * 3, Training(epochs=1, batch_size=4, rate=1e-2)
    said: list[str] = []

    def tuned(train: list[Row], training: Training, **more: Any) -> Prompt:
        encoder, lines = oracles.get("bert-encoder"), Lines(said)
        return tune(encoder, ENCODER, HEADED, train, training=training, report=lines, **more)

    usual = tuned(given, how)
    assert usual.method["training"]["refit"] == "on"
    assert f"training once more, on all {len(given)} rows" in said
    train, held = hold_out(given, DEV_SHARE, 0, by="label")
    assert usual.data["train"]["rows"] == len(train)
    names = [
        Row({"text": each, "label": each})
        for each in sorted({row.fields["label"] for row in given})
    ]
    off = replace(how, refit="off", label_rows="off", word_dropout=0.0, contrastive=0.0)
    # the same with these rows as rows
    both = tuned([*train, *names], replace(off, label_rows="off"), dev=held)
    other = tuned(train, replace(off, label_rows="on"), dev=held)
    assert alike(tensors(both), tensors(other))
    assert other.data["train"] == usual.data["train"]
    assert not alike(tensors(other), tensors(tuned(train, off, dev=held)))
    open_settings = ("refit", "label_rows", "word_dropout", "contrastive")
    kinds = {
        "few": usual,
        "dev": tuned(given, how, dev=held),  # which are to judge by alone
        "many": tuned(given * 60, how),
        "given": tuned(given, off),
    }
    settled = {
        name: [each.method["training"][setting] for setting in open_settings]
        for name, each in kinds.items()
    }
    assert settled == {
        "few": ["on", "on", 0.15, 0.5],
        "dev": ["off", "on", 0.15, 0.5],
        "many": ["off", "off", 0.0, 0.0],
        "given": ["off", "off", 0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("task", "fields", "settled"),
    [
        (Classify(template="{text} {other}"), {"other": "it was"}, ["on", "off", 0.15, 0.5]),
        (Multilabel(template="{text}", none="it"), {}, ["on", "off", 0.15, 0.0]),
    ],
    ids=["two texts", "several labels"],
)
def test_few_rows_go_without_what_they_cannot_have(
    task: Task, fields: dict[str, str], settled: list[Any]
) -> None:
    given = [
        Row({**row.fields, "labels": [row.fields["label"]], **fields}, row.where)
        for row in contract.ROWS * 3
    ]
    made = tune(
        oracles.get("bert-encoder"), task, HEADED, given, training=Training(epochs=1), report=SILENT
    )
    how = made.method["training"]
    names = ("refit", "label_rows", "word_dropout", "contrastive")
    assert [how[name] for name in names] == settled


def test_few_rows_have_steps_enough() -> None:
    assert [Training().settled(few).epochs for few in (0, 1, 16, 17, 320, 10_000)] == [
        4,
        40,
        40,
        20,
        4,
        4,
    ]
    assert Training(epochs=2).settled(16).epochs == 2
    assert Training(batch_size=8).settled(16).epochs == 20
    assert [Training().settled(slow=n).epochs for n in (1, 36, 144, 145, 10_000)] == [
        40,
        14,
        5,
        4,
        4,
    ]
    assert Training(epochs=2).settled(slow=16).epochs == 2
    assert Training().settled(slow=36).refit == "off"


def test_few_texts_have_the_steps_and_few_labels_have_not() -> None:
    texts = [Row({"prompt": "it was", "completion": "good"}, f"F:{n}") for n in range(20)]

    def steps(task: Task, given: list[Row], on: Backbone | None = None, **changes: Any) -> int:
        training, base = Training(**changes), on or get()
        _, _, loop = build_run(
            base, task.complete(given, base), Soft(length=3), given, (), training, SILENT
        )
        return loop.steps

    generate = Generate(template="{prompt}")
    assert steps(generate, texts) == 40
    assert steps(generate, texts, epochs=4) == 8
    assert steps(TASK, rows(20)) == 8
    tags = [Row({"tokens": ["it", "was"], "tags": ["good", "bad"]}, f"F:{n}") for n in range(20)]
    assert steps(Tag(), tags) == 8
    assert steps(Tag(), tags, on=oracles.get("bert-encoder")) == 40


def test_many_labels_have_larger_steps_and_two_a_label() -> None:
    def settled(few: int, labels: int, **given: int) -> tuple[int | None, int | None]:
        made = Training(**given).settled(few, labels)
        return made.batch_size, made.epochs

    assert settled(0, 77) == settled(320, 11) == (16, 4)
    assert settled(320, 40) == (40, 10)
    assert settled(770, 77) == (64, 12)
    assert settled(770, 77, batch_size=16) == (16, 4)
    assert settled(770, 77, epochs=4) == (64, 4)


def test_names_are_rows_of_one_text_with_one_label() -> None:
    pair = Classify(template="{text} {completion}")
    with pytest.raises(UserError, match="`label_rows=on`: labels are rows where a row is one text"):
        toy_run(None, task=pair, training=replace(TRAINING, label_rows="on"))


def test_names_teach_models_that_predict_tokens_too() -> None:
    found, other = (
        toy_run(None, training=replace(TRAINING, label_rows=how)) for how in ("on", "off")
    )
    assert not alike(tensors(found), tensors(other))
    assert found.data == other.data


@pytest.mark.parametrize("method", [Prefix(start="demonstrations"), Context(shots=3)])
def test_names_are_learned_and_never_shown(method: Method) -> None:
    for seed in range(4):
        starts = []
        for how in ("on", "off"):
            training = replace(TRAINING, label_rows=how, seed=seed)
            _, _, run = build_run(get(), TASK, method, rows(8), rows(4, 50), training, SILENT)
            starts.append({n: t.detach().clone() for n, t in run.trainable().tensors()})
            run.step()
        assert alike(*starts)


@pytest.mark.parametrize("name", ["refit", "label_rows"])
def test_several_tasks_have_neither(name: str, tmp_path: Path) -> None:
    members = [fw.Member(each, TASK, rows(8), rows(4, 50)) for each in ("one", "two")]
    training = replace(Training(), **{name: "on"})
    with pytest.raises(UserError, match=f"`{name}=on` is for the rows of one task"):
        fw.multitask(get(), members, Soft(length=2), tmp_path, training=training)
