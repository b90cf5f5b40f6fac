"""Calls in processes of their own: whatever ends the caller, or its call, ends the process too."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from foreword.evaluation.apart import LOADED, _hold_ctrl_c, call_apart
from foreword.training.interrupt import terminable
from processes import PATIENCE, Stuck, left_over, process, until


def test_the_exit_status_is_returned(tmp_path: Path) -> None:
    assert call_apart(os._exit, 7, folder=tmp_path) == 7
    assert call_apart(os.getpid, folder=tmp_path) == 0


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script without a guard, which leaves a trace where it is run."""
    path, made = tmp_path / "script.py", ModuleType("__main__")
    path.write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\nfrom os import _exit\n")
    made.__file__, made.__spec__ = str(path), None
    monkeypatch.setitem(sys.modules, "__main__", made)
    return made


def test_a_script_is_not_run_by_the_processes_of_its_calls(
    script: ModuleType, tmp_path: Path
) -> None:
    assert call_apart(os._exit, 7, folder=tmp_path) == 7
    assert not (tmp_path / "trace").exists()
    assert sys.modules["__main__"] is script


def test_a_script_that_defines_what_is_called_is_run(script: ModuleType, tmp_path: Path) -> None:
    exec("def ends(status):\n    import os\n    os._exit(status)", vars(script))
    with Path(str(script.__file__)).open("a") as file:
        file.write("def ends(status):\n    _exit(status)\n")
    assert call_apart(vars(script)["ends"], 7, folder=tmp_path) == 7
    assert (tmp_path / "trace").exists()


def test_a_call_while_the_script_is_run_says_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match=r"put the call in it below `if __name__ ==") as caught:
        call_apart(os._exit, 7, folder=tmp_path)
    assert "\n" not in str(caught.value)


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
