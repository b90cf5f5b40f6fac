"""What holds for every test: no network, one thread, shared tables, and no process left behind."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch; more cost time on tiny tensors

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cyclopts import App
from cyclopts.argument import ArgumentCollection
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

import processes

processes.prepare()
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
gc.disable()  # nothing that is imported is ever garbage: looking through it all takes seconds


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


_assemble = App.assemble_argument_collection
_assembled: dict[tuple[object, bool, str], ArgumentCollection] = {}


def _assemble_once(
    app: App, *, default_parameter: None = None, parse_docstring: bool = False
) -> ArgumentCollection:
    """Assemble a command's arguments once for all its calls, which takes as long as many a call."""
    assert default_parameter is None
    inherited = repr(app.app_stack.default_parameter)  # of the apps that are being run
    key = (app.default_command, parse_docstring, inherited)
    if key not in _assembled:
        _assembled[key] = _assemble(app, parse_docstring=parse_docstring)
    usual = _assembled[key]
    copied = usual.copy(reset_tokens=True)
    by_id = {id(old): new for old, new in zip(usual, copied, strict=True)}
    for each in copied:
        each.children = ArgumentCollection(by_id[id(child)] for child in each.children)
    return copied


App.assemble_argument_collection = _assemble_once  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _processes_end_with_their_test() -> Iterator[None]:
    yield
    processes.end_started()


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left() -> Iterator[None]:
    yield
    left = processes.left_over(processes.PATIENCE)
    for number in left:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    assert not left, f"processes of these tests were still running: {left}"
