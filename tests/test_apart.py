"""Calls in processes of their own: whatever ends the caller, or its call, ends the process too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from foreword.evaluation.apart import LOADED, _hold_ctrl_c, call_apart
from foreword.training.interrupt import terminable
from processes import PATIENCE, Stuck, left_over, process, until


def test_the_exit_status_is_returned(tmp_path: Path) -> None:
    assert call_apart(os._exit, 7, folder=tmp_path) == 7
    assert call_apart(os.getpid, folder=tmp_path) == 0


def call_stuck(folder: Path) -> None:
    """Call what never begins, as commands do; nothing is loaded for it, which would take long."""
    LOADED.clear()
    with terminable():
        call_apart(len, Stuck(folder.with_name("sign")), folder=folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_has_hardly_begun_ends_with_its_caller(
    number: signal.Signals, tmp_path: Path
) -> None:
    sign, folder = tmp_path / "sign", tmp_path / "folder"
    folder.mkdir()
    caller = process(call_stuck, folder)
    until(sign.exists, ended=lambda: not caller.is_alive())
    worker = int(sign.read_text())
    assert worker in left_over()
    assert caller.pid is not None
    os.kill(caller.pid, number)
    caller.join(PATIENCE)
    assert caller.exitcode != 0
    until(lambda: worker not in left_over())
    if number == signal.SIGKILL:  # else the caller removes its folder
        until(lambda: not folder.exists())


def test_ctrl_c_while_a_process_is_started_is_heard_afterwards() -> None:
    done = []

    def start() -> None:
        with _hold_ctrl_c():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("started")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["started"]
