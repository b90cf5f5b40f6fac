"""Threads that wait give their core away, unless the user has chosen otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from foreword.backbone.backbone import Backbone
from foreword.cli import common, settings
from foreword.cli.flags import Flags
from foreword.errors import UserError
from foreword.threads import CHOSEN, SPINNING, end_idle_threads, limit_spinning, use_threads


def test_threads_that_wait_sleep_soon() -> None:
    environment = {"PATH": "/bin"}
    limit_spinning(environment)
    assert environment == {"PATH": "/bin", **SPINNING}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_the_user_chose_stays(name: str) -> None:
    environment = {name: "7"}
    limit_spinning(environment)
    assert environment == {name: "7"}


def test_threads_that_were_kept_for_later_work_end() -> None:
    maps = Path("/proc/self/maps")
    if not (maps.exists() and "/libgomp" in maps.read_text("utf-8")):
        pytest.skip("torch computes by another OpenMP than GNU's")
    states = torch.linspace(-1, 1, 1_000_000)

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        expected = states.sin()
        working = threads()
        end_idle_threads()
        assert threads() < working
        assert torch.equal(states.sin(), expected)
    finally:
        torch.set_num_threads(before)
        end_idle_threads()


def test_threads_are_those_of_this_process_and_of_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.setenv("MKL_NUM_THREADS", "9")
    before = torch.get_num_threads()
    try:
        use_threads(3)
        assert torch.get_num_threads() == 3
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "3"
    finally:
        torch.set_num_threads(before)
    with pytest.raises(UserError, match="`threads=0`: give at least 1"):
        use_threads(0)


def test_a_run_and_a_loaded_model_take_the_threads_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(settings, "use_threads", asked.append)
    monkeypatch.setattr(common, "use_threads", asked.append)
    monkeypatch.setattr(Backbone, "load", lambda *_, **__: None)
    settings.settings(Flags(threads=3), None)
    common.Loading(threads=5).load("smollm2")
    common.Loading().load("smollm2")
    assert asked == [3, 5]
