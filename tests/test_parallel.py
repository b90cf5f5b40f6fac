"""Several processes train as one does, speak as one does, and end together."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed import TCPStore

import foreword.training.log
import foreword.training.loop
import foreword.training.step
from foreword.cli.main import run
from foreword.engine.passes import differentiate
from foreword.errors import UserError
from foreword.training.log import log_path
from foreword.training.processes import Processes, joined
from foreword.training.world import ALONE
from processes import PATIENCE, launch, process, until
from quick import first
from toys import get, pause, paused, release, rows, write

NEAR = 1e-6
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def meeting_place() -> Any:
    """Where processes find each other; a launcher's outlives each of them, and so does this."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


# Processes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """One process of several: what a launcher tells it, and what it is to do besides."""

    rank: int
    size: int
    port: str
    folder: Path
    paused_at: int | None = None
    killed_at: int | None = None

    def enter(self) -> None:
        torch.set_num_threads(1)
        os.environ |= {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": self.port,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.rank}.{kind}"


def command(place: Place, arguments: list[str]) -> None:
    """Run a command line as one of several processes; write down what it said and worked on."""
    place.enter()
    foreword.training.loop.SAVE_EVERY = 0.0
    given: list[int] = []
    step = foreword.training.log.Log.step

    def counted(backbone: Any, make: Any, examples: Sequence[Any], *more: Any, **named: Any) -> Any:
        given.append(len(examples))
        return differentiate(backbone, make, examples, *more, **named)

    def watched(log: foreword.training.log.Log, number: int, values: Any) -> None:
        step(log, number, values)
        if number == place.paused_at:
            pause(place.file("err"))
        if number == place.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    foreword.training.step.differentiate = counted
    foreword.training.log.Log.step = watched  # type: ignore[method-assign]
    with (
        place.file("out").open("w") as out,
        place.file("err").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        status = run(arguments)
    place.file("given").write_text(json.dumps(given))
    os._exit(status)


@dataclass(frozen=True)
class Ended:
    """How several processes ended, what each of them said, and how many rows each step had."""

    statuses: list[int | None]
    out: list[str]
    err: list[str]
    given: list[list[int]]

    @property
    def last_words(self) -> list[str]:
        return [line for text in self.err for line in text.splitlines() if "foreword:" in line]


def together(
    folder: Path,
    arguments: Callable[[int], list[str]] | list[str],
    size: int = 2,
    *,
    meanwhile: Callable[[list[Any]], None] = lambda started: None,
    paused_at: int | None = None,
    killed_at: int | None = None,
) -> Ended:
    """Run a command in several processes, the first of which may pause or die after a step."""
    folder.mkdir(parents=True, exist_ok=True)
    store = meeting_place()
    places = [
        Place(rank, size, str(store.port), folder, *((paused_at, killed_at) if rank == 0 else ()))
        for rank in range(size)
    ]
    lines = [arguments(p.rank) if callable(arguments) else arguments for p in places]
    started = [process(command, p, line) for p, line in zip(places, lines, strict=True)]
    meanwhile(started)
    for each in started:
        each.join(PATIENCE)
    read = [json.loads(p.file("given").read_text()) for p in places if p.file("given").exists()]
    return Ended(
        [each.exitcode for each in started],
        [p.file("out").read_text() for p in places],
        [p.file("err").read_text() for p in places],
        read,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and files of rows; no number of them is a multiple of another."""
    made = tmp_path_factory.mktemp("parallel")
    base = get()
    base.model.save_pretrained(made / "model")
    base.text.tokenizer.save_pretrained(made / "model")
    for name, n, start in (("train", 23, 0), ("dev", 9, 100), ("test", 5, 200)):
        write(made / f"{name}.jsonl", rows(n, start))
    return made


def train(folder: Path, out: Path, *more: str) -> list[str]:
    """The arguments of a run of 9 steps, the last of each epoch with 7 rows instead of 8."""
    usual = {
        "--model": str(folder / "model"),
        "--train": str(folder / "train.jsonl"),
        "--dev": str(folder / "dev.jsonl"),
        "--template": "{text} :",
        "--epochs": "3",
        "--batch-size": "8",
        "--out": str(out),
    }
    kept = [word for flag in usual if flag not in more for word in (flag, usual[flag])]
    return ["train", *kept, *more]


def alone(arguments: list[str]) -> None:
    assert run(arguments) == 0


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]:
    """A prompt file's metadata without its dev score, its tensors, and its log."""
    with safe_open(str(path), "pt") as file:
        meta = json.loads(file.metadata()["foreword"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    lines = [json.loads(line) for line in log_path(path).read_text("utf-8").splitlines()]
    return meta, tensors, lines


def check_same(one: Path, other: Path) -> None:
    """Both files and their logs tell of the same run, to rounding."""
    (meta, tensors, log), (meta2, tensors2, log2) = read(one), read(other)
    (score, score2) = (m.pop("scores")["dev"] for m in (meta, meta2))
    assert meta == meta2
    assert score == pytest.approx(score2, abs=NEAR)
    assert tensors.keys() == tensors2.keys()
    for name, tensor in tensors.items():
        assert float((tensor - tensors2[name]).abs().max()) <= NEAR, name
    assert log[0] == log2[0]
    for line, line2 in zip(log[1:], log2[1:], strict=True):
        assert line.pop("metric", None) == line2.pop("metric", None)
        del line["seconds"], line2["seconds"]
        assert line == pytest.approx(line2, abs=NEAR, rel=NEAR)


# The same result --------------------------------------------------------------------------------

METHODS = {
    "soft": ["--method", "soft"],
    "prefix": ["--method", "prefix", "--start", "random", "--length", "3"],
    "prefix of demonstrations by MLP": ["--method", "prefix", "--reparameterize", "4"],
}


def steps_said(shown: str) -> list[str]:
    """What was said of steps, but for the time that is left."""
    lines = [line for line in shown.splitlines() if line.startswith("step")]
    return [re.sub(r"; \d+ \w+ left$", "", line) for line in lines]


@pytest.mark.parametrize("task", first(1, ["generate", "classify"]))
@pytest.mark.parametrize("method", first(1, METHODS))
def test_two_processes_do_what_one_does(
    method: str, task: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    more = [*METHODS[method], "--task", task, "--test", str(folder / "test.jsonl")]
    alone(train(folder, one, *more))
    shown = capsys.readouterr()
    ended = together(tmp_path / "said", train(folder, two, *more))
    assert ended.statuses == [0, 0]
    check_same(one, two)
    assert [sum(each) for each in zip(*ended.given, strict=True)] == [8, 8, 7] * 3
    assert all(0 < count < 7 for each in ended.given for count in each)
    assert ended.out[1] == ended.err[1] == ""
    assert steps_said(ended.err[0]) == steps_said(shown.err) != []
    assert len(ended.out[0].splitlines()) == len(shown.out.splitlines()) > 1
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["one.log.jsonl", "one.safetensors", "said", "two.log.jsonl", "two.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("method", first(1, ["prefix", "soft"]))
def test_a_model_spread_over_two_processes_trains_as_in_one(
    method: str, folder: Path, tmp_path: Path
) -> None:
    """Also in several passes a step, and with its layers recomputed."""
    test = ("--test", str(folder / "test.jsonl"))
    more = ("--method", method, "--length", "3", "--token-budget", "40", "--checkpointing", *test)
    one, two = tmp_path / "one.safetensors", tmp_path / "two" / "two.safetensors"
    alone(train(folder, one, *more))
    ended = together(tmp_path / "two", train(folder, two, *more, "--shard"))
    assert ended.statuses == [0, 0], ended.err
    assert ended.given[0] == ended.given[1] == [8, 8, 7] * 3
    check_same(one, two)
    scores = [read(path)[0]["scores"]["test"] for path in (one, two)]
    assert scores[0] == scores[1]


def spread_out(place: Place) -> None:
    """Write down the share of the layers' weights that a process of a sharded model holds."""
    place.enter()
    with joined():
        base = get()
        assert base.stack is not None
        weights = [p for layer in base.stack.layers for p in layer.parameters()]
        whole, before = sum(p.numel() for p in weights), base.fingerprint
        base.shard()
        parts = [p for layer in base.stack.layers for p in layer.parameters()]
        held = sum(p.to_local().numel() for p in parts)  # type: ignore[attr-defined]
        facts = {"share": held / whole, "same": base.fingerprint == before}
    place.file("json").write_text(json.dumps(facts))


@pytest.mark.slow
def test_each_process_holds_a_part_of_a_sharded_model(tmp_path: Path) -> None:
    store = meeting_place()
    started = [process(spread_out, Place(rank, 2, str(store.port), tmp_path)) for rank in range(2)]
    for each in started:
        each.join(PATIENCE)
        assert each.exitcode == 0
    for rank in range(2):
        facts = json.loads((tmp_path / f"{rank}.json").read_text())
        assert facts == {"share": pytest.approx(0.5, abs=0.02), "same": True}


def test_one_process_has_nobody_to_spread_a_model_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train(folder, tmp_path / "p.safetensors", "--shard")) == 2
    assert "foreword: --shard spreads a model over processes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_batch_may_have_fewer_rows_than_there_are_processes(folder: Path, tmp_path: Path) -> None:
    one, three = tmp_path / "one.safetensors", tmp_path / "three.safetensors"
    # At a small rate: where gradients are near zero, AdamW makes steps of it out of rounding.
    more = ["--batch-size", "2", "--rows", "5", "--dev-rows", "2", "--weight-decay", "0.1"]
    more += ["--lr", "1e-3"]
    alone(train(folder, one, *more))
    ended = together(tmp_path / "said", train(folder, three, *more), size=3)
    assert ended.statuses == [0, 0, 0]
    check_same(one, three)
    assert sorted(sum(each) for each in ended.given) == [0, 6, 9]


def test_each_row_is_dealt_once_and_tokens_evenly() -> None:
    @given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 5))
    def check(sizes: list[int], size: int) -> None:
        shares = [Processes(rank, size).share(sizes) for rank in range(size)]
        assert sorted(i for share in shares for i in share) == list(range(len(sizes)))
        assert all(share == sorted(share) for share in shares)
        loads = [sum(sizes[i] for i in share) for share in shares]
        assert max(loads) - min(loads) <= max(sizes, default=0)

    check()


def test_one_process_has_all_rows_in_their_order() -> None:
    assert ALONE.share([3, 9, 1]) == [0, 1, 2]


def summed(place: Place) -> None:
    """Sum gradients that not all processes have."""
    place.enter()
    parts = [
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(())),
        nn.Parameter(torch.ones(1)),
    ]
    parts[0].grad = torch.tensor([1.0, 10.0]) * (1 + place.rank)
    if place.rank == 1:
        parts[1].grad = torch.tensor(5.0)
    model = nn.ParameterList(parts)
    with joined() as world:
        world.reduce(parts)
        with torch.no_grad():
            parts[0] += place.rank
        world.spread(model)
        facts = {
            "grads": [None if p.grad is None else p.grad.tolist() for p in parts],
            "spread": parts[0].tolist(),
            "least": [
                world.least(None),
                world.least(7 - place.rank),
                world.least([None, 3][place.rank]),
            ],
            "any": [world.any(False), world.any(place.rank == 1)],
            "same": [world.same("x"), world.same(f"{place.rank}")],
            "total": world.total(place.rank + 0.25, 1),
            "claim": world.claim(),
        }
    place.file("json").write_text(json.dumps(facts))


def test_what_processes_agree_on(tmp_path: Path) -> None:
    store = meeting_place()
    started = [process(summed, Place(rank, 2, str(store.port), tmp_path)) for rank in range(2)]
    for each in started:
        each.join(PATIENCE)
        assert each.exitcode == 0
    facts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert sorted(fact.pop("claim") for fact in facts) == [False, True]
    assert facts[0] == facts[1]
    assert facts[0] == {
        "grads": [[3.0, 30.0], 5.0, None],
        "spread": [0.0, 0.0],
        "least": [None, 6, 3],
        "any": [False, True],
        "same": [True, False],
        "total": [1.5, 2],
    }


# Stopped and resumed ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run in two processes that nothing stops."""
    made = tmp_path_factory.mktemp("whole")
    assert together(made, train(folder, made / "p.safetensors")).statuses == [0, 0]
    return made / "p.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("step", first(1, [6, 2]))
def test_a_killed_run_resumes_to_the_same_bytes(
    step: int, folder: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    ended = together(tmp_path / "killed", train(folder, out), killed_at=step)
    assert ended.statuses == [-signal.SIGKILL, 2]
    (word,) = ended.last_words
    assert "lost the others" in word
    ended = together(tmp_path / "resumed", train(folder, out, "--resume"))
    assert ended.statuses == [0, 0]
    assert f"resuming at step {step - 1} of 9" in ended.err[0]
    assert len(ended.given[1]) == 9 - (step - 1)
    assert out.read_bytes() == whole.read_bytes()
    check_same(whole, out)


@pytest.mark.slow
def test_another_number_of_processes_may_go_on(folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    assert together(tmp_path / "killed", train(folder, out), killed_at=5).statuses[1] == 2
    alone(train(folder, out, "--resume"))
    check_same(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("pressed", [[1], [0, 1]], ids=["one hears it", "both hear it"])
def test_ctrl_c_stops_all_at_the_same_step(
    pressed: list[int], folder: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"

    said = tmp_path / "stopped" / "0.err"

    def press(started: list[Any]) -> None:
        until(lambda: paused(said), ended=lambda: not started[0].is_alive())
        for rank in pressed:
            os.kill(started[rank].pid, signal.SIGINT)
        release(said)

    ended = together(said.parent, train(folder, out), meanwhile=press, paused_at=3)
    assert ended.statuses == [130, 130]
    done = len(steps_of(out))
    assert 3 <= done < 9
    assert ended.last_words == [
        f"foreword: stopped at step {done} of 9; the same command with --resume goes on"
    ]
    ended = together(tmp_path / "resumed", train(folder, out, "--resume"))
    assert f"resuming at step {done} of 9" in ended.err[0]
    assert out.read_bytes() == whole.read_bytes()


def steps_of(out: Path) -> list[int]:
    if not log_path(out).exists():
        return []
    lines = log_path(out).read_text("utf-8").splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry["step"] for entry in entries if "loss" in entry]


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mistake_that_only_the_first_process_meets_is_told_once_and_ends_all(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "taken"
    out.mkdir()
    ended = together(tmp_path / "said", train(folder, out))
    assert ended.statuses == [2, 2]
    (word,) = ended.last_words
    assert "is a folder" in word
    assert ended.out == ["", ""]


def test_a_mistake_that_only_the_second_process_meets_is_told_once_and_ends_all(
    folder: Path, tmp_path: Path
) -> None:
    def arguments(rank: int) -> list[str]:
        return train(folder, tmp_path / "p.safetensors", *(["--epochs", "many"] * rank))

    ended = together(tmp_path / "said", arguments)
    assert ended.statuses == [2, 2]
    (word,) = ended.last_words
    assert "epochs" in word.lower()
    assert not (tmp_path / "p.safetensors").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_told_as_one_process_tells_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--lr", "1e25", "--schedule", "constant"]
    assert run(train(folder, tmp_path / "p.safetensors", *more)) == 2
    word = capsys.readouterr().err.splitlines()[-1]
    assert "not finite at step" in word
    for left in tmp_path.iterdir():
        left.unlink()
    ended = together(tmp_path / "said", train(folder, tmp_path / "p.safetensors", *more))
    assert ended.statuses == [2, 2]
    assert ended.last_words == [word]


@pytest.mark.slow
def test_processes_with_other_rows_are_told_apart(folder: Path, tmp_path: Path) -> None:
    def arguments(rank: int) -> list[str]:
        return train(folder, tmp_path / "p.safetensors", "--rows", str(20 + rank))

    ended = together(tmp_path / "said", arguments)
    assert ended.statuses == [2, 2]
    (word,) = ended.last_words
    assert "differ in their rows" in word


@pytest.mark.slow
def test_other_commands_run_in_one_process(folder: Path, tmp_path: Path) -> None:
    ended = together(tmp_path, ["info", str(folder / "none.safetensors")])
    assert ended.statuses == [2, 2]
    (word,) = ended.last_words
    assert "only train" in word


def test_a_place_that_is_no_number_is_told_in_one_line() -> None:
    broken = joined({"RANK": "0", "WORLD_SIZE": "two"})
    with pytest.raises(UserError, match="cannot join the two processes") as caught, broken:
        pass
    assert "\n" not in str(caught.value)


def test_a_run_of_one_process_joins_nothing() -> None:
    for environment in ({}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "4"}):
        with joined(environment) as world:
            assert world is ALONE


def test_processes_have_devices_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Processes(rank=5, size=8, local=1)
    for there, expected in ((True, "cuda:1"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert second.device("auto") == expected
    assert second.device("cuda") == "cuda:1"
    assert second.device("cpu") == "cpu"
    assert ALONE.device("cuda:3") == "cuda:3"
    for word in ("cuda:0", "mps"):
        with pytest.raises(UserError, match=f"`device={word}` is one device for 8 processes"):
            second.device(word)


# The launchers ------------------------------------------------------------------------------------


PIPES: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.mark.slow
def test_torchrun_tells_a_mistake_in_one_line(folder: Path, tmp_path: Path) -> None:
    arguments = train(folder, tmp_path / "p.safetensors", "--labels", "good", "fine")
    running = launch(*LAUNCH, "--master-port", free_port(), "-m", "foreword", *arguments, **PIPES)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode != 0
    (word,) = [line for line in err.splitlines() if "foreword:" in line]
    assert "train.jsonl:2" in word
    assert "bad" in word
    assert out == ""


@pytest.mark.slow
def test_torchrun_passes_ctrl_c_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    arguments = train(folder, out, "--epochs", "5000")
    running = launch(*LAUNCH, "--master-port", free_port(), "-m", "foreword", *arguments, **PIPES)
    until(lambda: len(steps_of(out)) >= 3, ended=lambda: running.poll() is not None)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode != 0
    (word,) = [line for line in err.splitlines() if "foreword:" in line]
    assert word.startswith(f"foreword: stopped at step {len(steps_of(out))} of 15000")


@pytest.mark.slow
def test_accelerate_launch_does_the_same(folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    by = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    alone_with = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = ["--main_process_port", free_port(), "--module", "foreword"]
    words = [*by, *alone_with, *port, *train(folder, out), "--json"]
    running = launch(sys.executable, *words, **PIPES)
    shown, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err
    assert json.loads(shown)["out"] == str(out)
    assert out.read_bytes() == whole.read_bytes()
