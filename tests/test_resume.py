"""A run that is stopped, however and wherever, goes on to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toys
from foreword.errors import UserError
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter, Reporters
from foreword.tasks.labels.classifier import Classifier
from foreword.training import checkpoint
from foreword.training import loop as loop_module
from foreword.training.interrupt import Interrupted
from foreword.training.log import log_path
from foreword.training.settings import Training
from processes import PATIENCE, process
from quick import first
from toys import TASK, TRAINING, Lines, Recorder, at_line, get, on_the_run, rows, scripted, toy_run

OUT = "p.safetensors"
STEPS = 9


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_path(out).read_text("utf-8").splitlines()]


def check_log(out: Path) -> None:
    """Every step and every evaluation stands there once, in order, after the settings."""
    first, *rest = log_of(out)
    assert first["steps"] == STEPS
    assert first["config"]["method"]["training"]["seed"] == 0
    assert [e["step"] for e in rest if "loss" in e] == list(range(1, STEPS + 1))
    assert [e["step"] for e in rest if "dev" in e] == [0, 3, 6, 9]
    assert len(rest) == STEPS + 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of the toy run when nothing stops it."""
    out = tmp_path_factory.mktemp("whole") / OUT
    toy_run(out)
    check_log(out)
    return out.read_bytes()


@pytest.fixture
def always_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "SAVE_EVERY", 0.0)


# Killed -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many lines of training's own code the toy run executes."""
    before = sys.gettrace()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "SAVE_EVERY", 0.0)
        count = at_line(0, lambda: None)
        toy_run(tmp_path_factory.mktemp("lines") / OUT)
        sys.settrace(before)
    return count()


@pytest.mark.parametrize("part", first(1, [3, 8, 1, 2, 4, 5, 6, 7, 9]))
def test_a_run_killed_twice_at_any_line_resumes_to_the_same_bytes(
    part: int, tmp_path: Path, whole: bytes, lines: int, always_saving: None
) -> None:
    out = tmp_path / OUT
    for line, resume in ((lines * part // 10, False), (lines * (10 - part) // 23, True)):
        killed = process(toys.doomed_run, out, line, resume)
        killed.join(PATIENCE)
        assert killed.exitcode == -signal.SIGKILL
        assert not out.exists() or out.read_bytes() == whole
    toy_run(out, resume=True)
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.log.jsonl", OUT]
    check_log(out)


def test_what_a_kill_left_half_written_is_swept_away(tmp_path: Path, whole: bytes) -> None:
    for name in (f".{OUT}", f"..{OUT}.checkpoint", ".p.log.jsonl", ".other.safetensors"):
        (tmp_path / f"{name}.a_1b2c3d").write_text("half")
    toy_run(tmp_path / OUT)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".other.safetensors.a_1b2c3d", "p.log.jsonl", OUT]


# Stopped at a chosen place ------------------------------------------------------------------------


class Stopped(BaseException):
    """Ends a run in this process where a kill would."""


def stopped_run(
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    holder: Any,
    name: str,
    call: int,
    after: bool,
    **changes: Any,
) -> None:
    """Run until a function's given call; stop before it, or after."""
    original, calls = getattr(holder, name), 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Stopped
        result = original(*arguments, **named)
        if calls == call:
            raise Stopped
        return result

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, wrapped)
        with pytest.raises(Stopped):
            toy_run(out, **changes)


PLACES = {
    "in the first evaluation": (Classifier, "dev_counts", 1, False),
    "in a later evaluation": (Classifier, "dev_counts", 2, False),
    "after the first checkpoint": (checkpoint, "write", 1, True),
    "before a checkpoint": (checkpoint, "write", 2, False),
    "after a checkpoint": (checkpoint, "write", 2, True),
    "before a checkpoint gets its name": (os, "replace", 3, False),
    "before the prompt is saved": (Prompt, "save", 1, False),
    "after the prompt is saved": (Prompt, "save", 1, True),
    "before the last checkpoint is removed": (checkpoint, "remove", 3, False),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_run_stopped_at_a_delicate_place_resumes_to_the_same_bytes(
    place: str, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, *PLACES[place])
    toy_run(out, resume=True)
    assert out.read_bytes() == whole
    check_log(out)


@pytest.mark.parametrize("call", [3, 5])  # between steps, and where all dev rows are scored
def test_a_run_that_scores_a_sample_resumes_to_the_same_bytes(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(TRAINING, dev_sample=2)
    toy_run(tmp_path / "whole.safetensors", training=training)
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, Classifier, "dev_counts", call, False, training=training)
    toy_run(out, training=training, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert [e["step"] for e in log_of(out) if "dev" in e] == [0, 3, 6, 9, 9]


def test_a_log_line_cut_off_by_a_kill_is_written_again(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, checkpoint, "write", 3, False)
    log_path(out).write_bytes(log_path(out).read_bytes()[:-25])
    toy_run(out, resume=True)
    assert out.read_bytes() == whole
    check_log(out)


def test_resuming_takes_only_the_steps_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, checkpoint, "write", 3, True)
    said: list[str] = []
    recorder = Recorder()
    toy_run(out, resume=True, report=Reporters([Lines(said), recorder]))
    assert on_the_run(said) == ["resuming at step 6 of 9"]
    assert recorder.heard[0] == ("start", 9, 6)
    assert [entry[:2] for entry in recorder.heard[1:]] == [
        ("step", 7),
        ("step", 8),
        ("step", 9),
        ("score", 9),
        ("done",),
    ]


def test_a_resumed_run_is_as_patient_as_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(TRAINING, epochs=8, patience=2)
    out, other = tmp_path / OUT, tmp_path / "whole.safetensors"
    scripted(monkeypatch, [10, 30, 20, 25, 90])
    toy_run(other, training=training)
    scripted(monkeypatch, [10, 30, 20])
    stopped_run(out, monkeypatch, checkpoint, "write", 3, True, training=training)
    scripted(monkeypatch, [25, 90])
    toy_run(out, training=training, resume=True)
    assert out.read_bytes() == other.read_bytes()
    assert [e["dev"] for e in log_of(out) if "dev" in e] == [10, 30, 20, 25]


@pytest.mark.parametrize(
    "method",
    [Prefix(length=3, start="random"), Prefix(shots=2, first_layer=1, reparameterize=4)],
    ids=["prefix", "prefix by MLP"],
)
def test_other_methods_resume_to_the_same_bytes(
    method: Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_run(tmp_path / "whole.safetensors", method=method)
    stopped_run(tmp_path / OUT, monkeypatch, checkpoint, "write", 3, True, method=method)
    toy_run(tmp_path / OUT, method=method, resume=True)
    assert (tmp_path / OUT).read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_without_a_checkpoint_a_resumed_run_starts_anew(tmp_path: Path, whole: bytes) -> None:
    said: list[str] = []
    toy_run(tmp_path / OUT, resume=True, report=Lines(said))
    assert on_the_run(said) == ["nothing to resume: no checkpoint; starting anew"]
    assert (tmp_path / OUT).read_bytes() == whole
    check_log(tmp_path / OUT)


def test_a_checkpoint_that_is_not_resumed_is_dropped_and_that_is_said(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, checkpoint, "write", 2, True)
    said: list[str] = []
    toy_run(out, report=Lines(said))
    assert ["use `resume`" in line for line in on_the_run(said)] == [True]
    assert out.read_bytes() == whole
    check_log(out)


# Refused ------------------------------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"training": replace(TRAINING, seed=1)},
    "epochs": {"training": replace(TRAINING, epochs=4)},
    "rate": {"method": Soft(length=3, rate=0.5)},
    "length": {"method": Soft(length=4)},
    "template": {"task": replace(TASK, template="{text}:")},
    "training rows": {"train": rows(13)},
    "dev rows": {"dev": rows(5, 100)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_not_resumed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, checkpoint, "write", 2, True)
    kept = checkpoint.path_for(out).read_bytes()
    log = log_path(out).read_bytes()
    with pytest.raises(UserError, match=r"other data, model or settings; .* remove the file"):
        toy_run(out, resume=True, **OTHERS[what])
    assert checkpoint.path_for(out).read_bytes() == kept
    assert log_path(out).read_bytes() == log
    assert not out.exists()


def test_another_model_or_precision_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, checkpoint, "write", 2, True)
    for name, double in (("gpt2", False), ("llama", True)):
        with monkeypatch.context() as patch:
            patch.setattr(toys, "get", lambda: get(name, double))  # noqa: B023
            with pytest.raises(UserError, match="other data, model or settings"):
                toy_run(out, resume=True)


def test_a_checkpoint_cut_off_anywhere_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / OUT
    stopped_run(out, monkeypatch, checkpoint, "write", 3, True)
    path = checkpoint.path_for(out)
    content = path.read_bytes()
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="damaged checkpoint") as caught:
            toy_run(out, resume=True)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="checkpoint: is a folder"):
        toy_run(out, resume=True)


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_checkpoint_with_one_wrong_bit_is_refused(
    at: int, bit: int, saved: tuple[Path, bytes, str]
) -> None:
    path, content, run = saved
    damaged = bytearray(content)
    damaged[at % len(content)] ^= 1 << bit
    path.write_bytes(damaged)
    trainable = Soft(length=3).build(TASK.bind(get()), [], 0)
    optimizer = torch.optim.AdamW(trainable.parameters())
    with pytest.raises(UserError, match=r"checkpoint|is of a run with other"):
        checkpoint.read(path, run, trainable, optimizer)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, str]:
    """A checkpoint's path, its content, and what it is a run of."""
    out = tmp_path_factory.mktemp("saved") / OUT
    with pytest.MonkeyPatch.context() as patch:
        stopped_run(out, patch, checkpoint, "write", 3, True)
    path = checkpoint.path_for(out)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    progress = json.loads(header["__metadata__"][checkpoint.KEY])
    assert (progress["step"], len(progress["run"])) == (6, 64)
    return path, content, progress["run"]


# Ctrl-C -------------------------------------------------------------------------------------------


class Impatient(Recorder):
    """Presses Ctrl-C at a step, as often as told."""

    def __init__(self, at: int, times: int) -> None:
        super().__init__()
        self.at, self.times = at, times

    def step(self, number: int, values: Any) -> None:
        super().step(number, values)
        for _ in range(self.times * (number == self.at)):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [2, 3, 9])
def test_ctrl_c_saves_the_step_and_resuming_goes_on(
    step: int, tmp_path: Path, whole: bytes
) -> None:
    out = tmp_path / OUT
    before = signal.getsignal(signal.SIGINT)
    watcher = Impatient(step, 1)
    with pytest.raises(Interrupted, match=f"stopped at step {step} of 9"):
        toy_run(out, report=watcher)
    assert signal.getsignal(signal.SIGINT) is before
    assert watcher.heard[-1] == ("done",)
    assert not out.exists()
    said: list[str] = []
    toy_run(out, resume=True, report=Lines(said))
    assert on_the_run(said) == [f"resuming at step {step} of 9"]
    assert out.read_bytes() == whole
    check_log(out)


def test_ctrl_c_while_all_dev_rows_are_scored_is_heard_too(tmp_path: Path) -> None:
    class AtTheEnd(Reporter):
        @contextmanager
        def bar(self, name: str, total: int) -> Iterator[Any]:
            if total == 6:
                signal.raise_signal(signal.SIGINT)
            yield lambda rows: None

    whole, out, training = tmp_path / "whole.safetensors", tmp_path / OUT, Training(dev_sample=2)
    toy_run(whole, training=training)
    with pytest.raises(Interrupted, match="stopped at step 4 of 4"):
        toy_run(out, training=training, report=AtTheEnd())
    assert not out.exists()
    toy_run(out, training=training, resume=True)
    assert out.read_bytes() == whole.read_bytes()
    assert log_of(out)[-1]["metric"] == "accuracy of all rows"
    assert [e["step"] for e in log_of(out) if "dev" in e] == [0, 1, 2, 3, 4, 4]


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, whole: bytes) -> None:
    watcher = Impatient(5, 2)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / OUT, report=watcher)
    assert watcher.heard[-1] == ("done",)
    toy_run(tmp_path / OUT, resume=True)
    assert (tmp_path / OUT).read_bytes() == whole


def test_ctrl_c_without_a_file_to_save_to_ends_too() -> None:
    with pytest.raises(Interrupted, match="stopped at step 2 of 9"):
        toy_run(None, report=Impatient(2, 1))
