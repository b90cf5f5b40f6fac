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
