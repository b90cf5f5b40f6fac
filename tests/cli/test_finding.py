"""``foreword train --find-lr``: a curve and a rate, and no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, World

Cli = Callable[..., Answer]


@pytest.fixture
def asked(world: World, tmp_path: Path) -> list[str]:
    out = tmp_path / "p.safetensors"
    given = world.train(out, "--method", "soft", "--length", "3", "--start", "random")
    given.remove("--out")
    given.remove(str(out))
    return [*given, "--find-lr"]


@pytest.mark.slow
def test_it_suggests_a_rate_and_writes_nothing(
    asked: list[str], cli: Cli, world: World, tmp_path: Path
) -> None:
    before = sorted(world.folder.iterdir())
    answer = cli(*asked, "--json")
    assert answer.status == 0, answer.err
    assert answer.json["suggestion"] in answer.json["rates"]
    assert len(answer.json["rates"]) == len(answer.json["losses"])
    shown = cli(*asked)
    assert f"try --lr {answer.json['suggestion']:.1e}" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "█" in shown.out
    assert sorted(world.folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_told(asked: list[str], cli: Cli) -> None:
    answer = cli(*asked, "--length", "0")
    assert answer.status == 2
    assert answer.err.strip().count("\n") == 0
