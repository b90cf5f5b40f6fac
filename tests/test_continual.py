"""Learning a task after another, with and without rows of the old one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.methods.full import Full
from foreword.methods.parts.from_file import FromFile
from foreword.methods.parts.start_from_prompt import mean_loss
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.training import checkpoint
from foreword.training import loop as loop_module
from foreword.training.loop import Loop
from foreword.training.prepare import prepare
from foreword.training.several_tasks import Replay
from toys import TASK, TRAINING, Lines, Recorder, get, rows, toy_run

SWAPPED = Classify(template="{text} :", labels={"good": " bad", "bad": " good"})


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "old.safetensors"
    toy_run(path)
    return path


def new_run(out: Path | None, old: Path, replay: Replay | None, **changes: Any) -> Prompt:
    method, _ = FromFile.read(old)
    return toy_run(out, method=method, task=SWAPPED, train=rows(12, 300), replay=replay, **changes)


def test_the_old_rows_have_their_share_of_each_batch_and_their_own_task(old: Path) -> None:
    method, _ = FromFile.read(old)
    given = Replay(TASK, rows(7, 400), 0.25)
    _, _, run = prepare(
        get(), SWAPPED, method, rows(12), rows(6, 100), TRAINING, SILENT, replay=given
    )
    assert (run.examples.counts, run.per_epoch) == ({"new": 12, "old": 4}, 4)
    for step in range(8):
        assert sum(run.examples.train_rows[i].task for i in run.order.batch(step)) == 1
    for item, row in zip(run.examples.train, run.examples.train_rows, strict=True):
        bound = (SWAPPED, TASK)[row.task].bind(get())
        assert item.example == bound.train_example(row, 500).example


def test_names_of_labels_are_new_rows_that_come_once_too(old: Path) -> None:
    method, _ = FromFile.read(old)
    training, given = replace(TRAINING, label_rows="on"), Replay(TASK, rows(7, 400), 0.25)
    _, _, run = prepare(
        get(), SWAPPED, method, rows(12), rows(6, 100), training, SILENT, replay=given
    )
    assert run.examples.counts == {"new": 14, "old": 5}
    drawn = [n for step in range(run.per_epoch) for n in run.order.batch(step)]
    new = [n for n, row in enumerate(run.examples.train_rows) if row.task == 0]
    assert sorted(n for n in drawn if n in new) == new


def test_replay_changes_what_is_learned_and_the_file_says_so(old: Path, tmp_path: Path) -> None:
    plainly = new_run(tmp_path / "a.safetensors", old, None)
    given = rows(6, 400)
    mixed = new_run(tmp_path / "b.safetensors", old, Replay(TASK, given, 0.5))
    assert mixed.data["replay"]["rows"] == 6
    assert mixed.data["replay"]["share"] == 0.5
    assert mixed.data["replay"]["task"]["labels"] == {"good": " good", "bad": " bad"}
    assert "replay" not in plainly.data
    assert mixed.task == plainly.task
    assert mixed.data["train"] == plainly.data["train"]


def test_a_step_has_both_tasks_by_their_shares_of_its_rows() -> None:
    """One batch of 3 classified rows and 9 generated ones, of several tokens each."""
    written, told = Generate(template="{text} :"), Recorder()
    new, old = rows(3), rows(9, 400)
    training = replace(TRAINING, epochs=1, batch_size=12, rate=1e-20, warmup=0)
    method = Soft(length=3)
    made = toy_run(
        None,
        train=new,
        method=method,
        training=training,
        replay=Replay(written, old, 0.75),
        report=told,
    )
    alone = [
        mean_loss(task.bind(get()), made.injection, given)
        for task, given in ((TASK, new), (written, old))
    ]
    assert alone[1] > 2 * alone[0]
    (step,) = told.of("step")
    assert step["loss"] == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-5)
    with pytest.raises(UserError, match="`mixup` would mix rows of different tasks"):
        toy_run(None, training=replace(TRAINING, mixup=0.3), replay=Replay(TASK, old, 0.5))


def test_what_is_forgotten_is_forgotten_less_with_replay(tmp_path: Path) -> None:
    """Labels are swapped, so that to learn the new task is to forget the old one."""
    old = tmp_path / "old.safetensors"
    toy_run(old, method=Full(rate=1e-2))

    def loss(replay: Replay | None) -> float:
        recorder = Recorder()
        method, _ = FromFile.read(old)
        _, _, run = prepare(
            get(), SWAPPED, method, rows(12), rows(6, 100), TRAINING, SILENT, replay=replay
        )

        run.go(recorder)
        return old_loss(run, rows(12, 700))

    assert loss(Replay(TASK, rows(12), 0.5)) < loss(None)


def old_loss(run: Loop, given: list[Row]) -> float:

    return mean_loss(TASK.bind(get()), run.trainable().map(lambda t: t.detach()), given)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "SAVE_EVERY", 0.0)
    replay = Replay(TASK, rows(7, 400), 0.3)
    new_run(tmp_path / "whole.safetensors", old, replay)

    class Stopped(BaseException):
        pass

    written = 0
    write = checkpoint.write

    def stopping(*arguments: Any) -> None:
        nonlocal written
        write(*arguments)
        written += 1
        if written == 5:
            raise Stopped

    out = tmp_path / "p.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", stopping)
        with pytest.raises(Stopped):
            new_run(out, old, replay)
    said: list[str] = []
    new_run(out, old, replay, resume=True, report=Lines(said))
    assert said[0].startswith("resuming at step 4 of")
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
