"""Reporters: all of them hear everything, and the end in any case."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foreword import terminal
from foreword.errors import UserError
from foreword.reporter import Reporters
from foreword.terminal import Terminal
from foreword.training import trackers as tracking
from foreword.training.log import Log, log_path
from foreword.training.trackers import TRACKERS, trackers
from toys import Recorder, toy_run

VALUES = {"loss": 1.5, "rate": 0.1, "norm": 2.0, "rows": 4.0}


class Failing(Recorder):
    """Raises at one of its four calls."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def _act(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(f"fails at its {where}")

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        super().start(config, steps, done)
        self._act("start")

    def step(self, number: int, values: Mapping[str, float]) -> None:
        super().step(number, values)
        self._act("step")

    def score(self, number: int, metric: str, value: float) -> None:
        super().score(number, metric, value)
        self._act("score")

    def done(self) -> None:
        super().done()
        self._act("done")


# All of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["start", "step", "score", "done"])
def test_every_reporter_hears_the_end_whichever_fails(where: str) -> None:
    members = [Recorder(), Failing(where), Recorder()]
    with pytest.raises(RuntimeError, match=f"fails at its {where}"):
        toy_run(None, report=Reporters(members))
    assert [member.heard[-1] for member in members] == [("done",)] * 3
    assert [member.heard.count(("done",)) for member in members] == [1, 1, 1]


def test_reporters_are_told_in_order_and_all_the_same() -> None:
    one, two = Recorder(), Recorder()
    both = Reporters([one, two])
    both.start({}, 9, 3)
    both.step(4, VALUES)
    both.score(4, "accuracy", 50.0)
    both.done()
    assert one.heard == two.heard
    assert [entry[0] for entry in one.heard] == ["start", "step", "score", "done"]


def test_a_run_tells_its_steps_with_their_numbers() -> None:
    recorder = Recorder()
    toy_run(None, report=recorder)
    assert [entry[1] for entry in recorder.heard if entry[0] == "step"] == list(range(1, 10))
    assert {tuple(values) for values in recorder.of("step")} == {("loss", "rate", "norm", "rows")}
    assert [values["rows"] for values in recorder.of("step")] == [4] * 9


# The log ------------------------------------------------------------------------------------------


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_log_holds_the_effective_settings_and_a_line_a_step(tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    recorder = Recorder()
    prompt = toy_run(out, report=recorder)
    first, *rest = entries(log_path(out))
    config = first["config"]
    assert config["task"]["labels"] == {"good": [" good"], "bad": [" bad"]}
    assert config["task"]["name"] == "classify"
    assert config["method"] == prompt.method
    assert config["data"] == prompt.data
    assert config["backbone"] == {**prompt.backbone, "dtype": "float32"}
    steps = [entry for entry in rest if "loss" in entry]
    for entry, values in zip(steps, recorder.of("step"), strict=True):
        assert {name: entry[name] for name in values} == values
    scores = [entry for entry in rest if "dev" in entry]
    assert [entry["dev"] for entry in scores] == recorder.of("score")
    assert {entry["metric"] for entry in scores} == {"accuracy"}
    seconds = [entry["seconds"] for entry in rest]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    "tail", ["", '{"step": 4, "lo', '{"step": 4, "loss": 1.0}\n{"st', "\x00\x00"]
)
def test_a_log_goes_on_after_the_steps_that_are_done(tail: str, tmp_path: Path) -> None:
    path = tmp_path / "run.log.jsonl"
    log = Log(path)
    log.start({"name": "Größe"}, 9, 0)
    for number in (1, 2, 3):
        log.step(number, VALUES)
    log.score(3, "accuracy", 60.0)
    path.write_text(path.read_text("utf-8") + tail, "utf-8")
    log = Log(path)
    log.start({"name": "Größe"}, 9, 3)
    log.step(4, VALUES)
    assert [entry.get("step") for entry in entries(path)] == [None, 1, 2, 3, 3, 4]
    assert entries(path)[0]["config"] == {"name": "Größe"}


def test_a_log_that_was_removed_begins_with_the_settings_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "run.log.jsonl")
    log.start({"name": "x"}, 9, 6)
    log.step(7, VALUES)
    assert [entry.get("step") for entry in entries(log.path)] == [None, 7]


def test_a_new_run_has_a_new_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "run.log.jsonl")
    for _ in range(2):
        log.start({}, 9, 0)
        log.step(1, VALUES)
    assert [entry.get("step") for entry in entries(log.path)] == [None, 1]


def test_a_log_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    log = Log(tmp_path / "run.log.jsonl")
    log.start({}, 9, 0)
    log.path.unlink()
    log.path.mkdir()
    with pytest.raises(UserError, match=r"run.log.jsonl: cannot be written \(Is a directory\)"):
        log.step(1, VALUES)


# The bar ------------------------------------------------------------------------------------------


def test_where_there_is_no_terminal_the_bar_is_a_line_an_evaluation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy_run(None, report=Terminal())
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("step 0 of 9: accuracy on dev ")
    steps = [f"step {number} of 9" for number in (0, 3, 6, 9)]
    assert [line.split(":")[0] for line in lines] == steps
    assert all(" loss " in line for line in lines[1:])
    assert [line.endswith(" s left") for line in lines] == [False, True, True, False]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a terminal sees: the one number in this list."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_what_takes_long_says_how_far_it_is_and_how_long_it_will_take(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal().bar("test rows", 500) as move:
        for _ in range(50):
            clock[0] += 1
            move(10)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "test rows: 20 of 500, 48 s left",
        "test rows: 120 of 500, 38 s left",
        "test rows: 320 of 500, 18 s left",
    ]


def test_what_is_done_at_once_says_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal().bar("test rows", 20) as move:
        move(10)
        clock[0] += 1.9
        move(10)
    assert capsys.readouterr() == ("", "")


def test_a_run_that_goes_on_counts_only_its_own_steps_for_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Terminal()
    shown.start({}, 100, 50)
    for number in range(51, 61):
        clock[0] += 3
        shown.step(number, VALUES)
    shown.done()
    assert capsys.readouterr().err.splitlines() == [
        "step 51 of 100: loss 1.500; 2 min left",
        "step 55 of 100: loss 1.500; 2 min left",
    ]


def test_bars_stand_below_each_other_and_only_a_run_leaves_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    shown.start({}, 9, 0)
    with shown.bar("dev rows", 7) as move:
        move(3)
        assert shown.live is not None
        assert [task.description for task in shown.live.tasks] == ["tuning", "dev rows"]
    shown.step(1, VALUES)
    shown.line("a line between")
    shown.done()
    assert shown.live is None
    after = capsys.readouterr().err.partition("a line between")[2]
    assert "tuning" in after
    assert "1/9" in after


def test_on_a_terminal_the_bar_shows_loss_score_speed_and_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    toy_run(None, report=Terminal())
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "9/9" in shown.err
    for part in ("tuning", "loss 0.", "dev ", "rows/s", "0:00:00"):
        assert part in shown.err


# Trackers -----------------------------------------------------------------------------------------


def test_tensorboard_has_the_numbers_of_the_run(tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    recorder = Recorder()
    toy_run(out, report=Reporters([recorder, *trackers(["tensorboard"], out)]))
    found = EventAccumulator(str(tmp_path / "tensorboard" / "p"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {
        "train/loss",
        "train/rate",
        "train/norm",
        "train/rows",
        "dev/accuracy",
    }
    losses = found.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, 10))
    expected = [values["loss"] for values in recorder.of("step")]
    assert [event.value for event in losses] == pytest.approx(expected)
    assert [event.value for event in found.Scalars("dev/accuracy")] == recorder.of("score")


class Calls:
    """A stand-in for the libraries that are not installed: it keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Calls:
            self.calls.append((name, arguments, named))
            return self

        return call


@pytest.mark.parametrize(
    ("name", "begun", "sent", "ended"),
    [
        ("wandb", "init", "log", "finish"),
        ("mlflow", "start_run", "log_metrics", "end_run"),
        ("trackio", "init", "log", "finish"),
    ],
)
def test_the_other_trackers_get_the_run_through_their_own_functions(
    name: str, begun: str, sent: str, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Calls()
    module = types.ModuleType(name)
    module.__getattr__ = library.__getattr__  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, name, module)
    toy_run(tmp_path / "p.safetensors", report=trackers([name], tmp_path / "p.safetensors")[0])
    names = [call[0] for call in library.calls]
    assert names[0] == begun
    assert names[-1] == ended
    assert names.count(sent) == 9 + 4
    steps = [named["step"] for call, _, named in library.calls if call == sent]
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]
    assert any("classify" in str(call) for call in library.calls)  # the settings


def test_a_tracker_that_never_began_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Calls()
    monkeypatch.setattr(tracking, "_library", lambda module, extra: library)
    tracker = trackers(["wandb"], Path("p.safetensors"))[0]
    with pytest.raises(RuntimeError, match="fails at its start"):
        toy_run(None, report=Reporters([Failing("start"), tracker]))
    assert library.calls == []


@pytest.mark.parametrize("name", TRACKERS)
def test_a_library_that_is_missing_is_told_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'foreword\[{name}\]'"):
        trackers([name], Path("p.safetensors"))


def test_an_unknown_tracker_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        trackers(["tensorbord"], Path("p.safetensors"))


def test_trackers_may_be_named_in_one_word_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_library", lambda module, extra: Calls())
    assert len(trackers(["wandb,mlflow", "trackio"], Path("p.safetensors"))) == 3
    with pytest.raises(UserError, match="`report_to=wnadb`: unknown; did you mean 'wandb'"):
        trackers(["mlflow,wnadb"], Path("p.safetensors"))


def test_a_table_stands_above_the_bars_and_goes_with_its_rows() -> None:
    shown = Terminal()
    shown.console = Console(force_terminal=True, width=60, file=io.StringIO())
    shown.table(("a",), [("before any bar",)])
    with shown.bar("searching", 10) as move:
        shown.table(("trial", "dev"), [("0", "81.20"), ("best: 3", "90.10")])
        move(2)
        assert shown.live is not None
        plain = Console(width=60, file=io.StringIO(), record=True)
        plain.print(shown.live.get_renderable())
        lines = [" ".join(line.split()) for line in plain.export_text().splitlines()]
        assert [line[:12] for line in lines[1:3]] == ["0 81.20", "best: 3 90.1"]
        assert "searching" in lines[3]
        shown.table((), ())
        assert len(list(shown.live.get_renderables())) == 1
    assert shown.live is None
