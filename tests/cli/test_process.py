"""Whole processes: signals from outside, pipes that close, and what an import costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.training.log import log_path
from processes import PATIENCE, launch, process, until
from quick import first
from toys import command, paused, release

STEPS = 12

Cli = Callable[..., Any]


def steps_of(out: Path) -> list[int]:
    """The steps that a run's log tells of, its last line perhaps half written."""
    if not log_path(out).exists():
        return []
    lines = log_path(out).read_text("utf-8").splitlines(keepends=True)
    read = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry["step"] for entry in read if "loss" in entry]


def interrupted(arguments: list[str], out: Path, number: signal.Signals, step: int) -> Any:
    """Start a command, send it a signal after a step; return its end and its words."""
    errors = out.with_suffix(".stderr")
    running = process(command, arguments, errors, step)
    until(lambda: paused(errors), ended=lambda: not running.is_alive())
    assert running.pid is not None
    os.kill(running.pid, number)
    release(errors)
    running.join(PATIENCE)
    return running.exitcode, errors.read_text()


@pytest.fixture(scope="module")
def whole(world: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of the run when nothing stops it."""
    from foreword.cli.main import run

    out = tmp_path_factory.mktemp("whole") / "p.safetensors"
    assert run(world.train(out, "--epochs", "4")) == 0
    assert steps_of(out) == list(range(1, STEPS + 1))
    return out.read_bytes()


@pytest.mark.parametrize("step", first(1, [5, 1, 3, 9, 12]))
def test_a_run_that_is_killed_resumes_to_the_same_bytes(
    step: int, world: Any, cli: Cli, tmp_path: Path, whole: bytes
) -> None:
    out = tmp_path / "p.safetensors"
    arguments = world.train(out, "--epochs", "4")
    status, _ = interrupted(arguments, out, signal.SIGKILL, step)
    assert status == -signal.SIGKILL
    assert steps_of(out) == list(range(1, step + 1))
    answer = cli(*arguments, "--resume")
    assert answer.status == 0
    assert "resuming at step" in answer.err
    assert out.read_bytes() == whole
    assert steps_of(out) == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("number", "expected"), first(1, [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
)
def test_a_signal_saves_says_how_to_go_on_and_sets_the_status(
    number: signal.Signals, expected: int, world: Any, cli: Cli, tmp_path: Path, whole: bytes
) -> None:
    out = tmp_path / "p.safetensors"
    arguments = world.train(out, "--epochs", "4")
    status, words = interrupted(arguments, out, number, 4)
    assert steps_of(out) == [1, 2, 3, 4]
    assert status == expected
    assert words.splitlines()[-1] == (
        f"foreword: stopped at step 4 of {STEPS}; the same command with --resume goes on"
    )
    assert "Traceback" not in words
    assert not out.exists()
    answer = cli(*arguments, "--resume", "--json")
    assert f"resuming at step 4 of {STEPS}" in answer.err
    assert out.read_bytes() == whole
    assert json.loads(answer.out)["out"] == str(out)


def test_a_reader_that_leaves_early_is_no_error(world: Any, tmp_path: Path) -> None:
    """And ``python -m foreword`` is the command."""
    read, written = os.pipe()
    os.close(read)
    errors = tmp_path / "stderr"
    with errors.open("wb") as file:
        running = launch(
            *(sys.executable, "-m", "foreword", "info", world.path("p.safetensors"), "--json"),
            stdout=written,
            stderr=file,
        )
        os.close(written)
        assert running.wait(PATIENCE) == 0
    assert errors.read_text() == ""


def test_letters_that_a_code_page_has_not_are_no_error(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    given = [{"text": "a", "label": "\u597d"}, {"text": "b", "label": "\u574f"}]
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    running = launch(
        *("env", "PYTHONIOENCODING=cp1252"),
        *(sys.executable, "-m", "foreword", "data", "check", str(rows)),
        stdout=subprocess.PIPE,
    )
    shown, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert b"labels: \\u574f 1, \\u597d 1" in shown


@pytest.mark.slow
def test_importing_every_public_name_leaves_other_libraries_alone() -> None:
    """Those for scores and for other formats of data come when they are needed.

    What transformers imports remarks nothing here, and may do so later.
    """
    heavy = ["sklearn", "sacrebleu", "rouge_score", "datasets", "pandas", "pyarrow", "peft"]
    code = f"""if True:
        import sys, logging
        from foreword import *
        levels = [logging.getLogger(name).level for name in ("torchao", "bitsandbytes")]
        print([m for m in {heavy} if m in sys.modules], levels, logging.root.manager.disable)
    """
    running = launch(sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown, remarks = running.communicate(timeout=PATIENCE)
    assert remarks.decode() == ""
    assert shown.decode().strip() == "[] [0, 0] 0"
