"""Few rows of each label from the command line: what is chosen by, and what is told of leaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toys import rows, write

Cli = Callable[..., Any]


def test_dev_rows_are_as_many_others_of_each_label(world: Any, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "p.safetensors"
    few = [*world.train(out, "--per-label", "4", "--json")]
    at = few.index("--dev")
    answer = cli(*few[:at], *few[at + 2 :])
    assert "no dev rows given: 8 others are taken, 4 a label" in answer.err
    data = answer.json["config"]["data"]
    assert (data["train"]["rows"], data["dev"]["rows"]) == (8, 8)
    assert data["dev"]["in_train"] == 0
    assert "marks" not in answer.err  # which people read
    most = [*few[:at], *few[at + 2 :], "--per-label", "7"]
    most[most.index("--per-label") + 1] = "7"  # of 12, so that no 7 others are left
    answer = cli(*most[:-2])
    assert "1 of the training rows is held back" in answer.err
    assert answer.json["config"]["data"]["train"]["rows"] == 13


def test_leaks_are_told_in_train_and_eval(world: Any, tmp_path: Path, cli: Cli) -> None:
    test = write(tmp_path / "test.jsonl", [*rows(6, 200), *rows(2)])
    out = tmp_path / "p.safetensors"
    line = "warning: 2 of 8 of these rows are in train too"
    answer = cli(*world.train(out, "--test", test))
    assert line in answer.out
    assert line in cli("eval", out, "--data", test).out
    assert cli("eval", out, "--data", test, "--json").json["in_train"] == 2
    assert cli("info", out, "--json").json["scores"]["test"]["in_train"] == 2
    clean = cli("eval", out, "--data", world.path("test.jsonl"))
    assert "in train too" not in clean.out


@pytest.mark.slow
def test_a_comparison_chooses_by_others_too(world: Any, tmp_path: Path, cli: Cli) -> None:
    answer = cli(
        "compare",
        "--methods",
        "soft",
        "--data",
        world.path("train.jsonl"),
        "--test",
        world.path("test.jsonl"),
        "--model",
        world.path("model"),
        "--template",
        "{text} :",
        "--per-label",
        "2",
        "--epochs",
        "1",
        "--out",
        tmp_path / "c.jsonl",
        "--json",
    )
    assert answer.status == 0, answer.err
    (line,) = (tmp_path / "c.jsonl").read_text().splitlines()
    assert '"dev": "as many rows of each label"' in line
    assert "held back" not in answer.err


def test_a_sample_of_the_dev_rows_is_told_with_its_flag(
    world: Any, tmp_path: Path, cli: Cli
) -> None:
    answer = cli(*world.train(tmp_path / "p.safetensors", "--dev-sample", "4", "--json"))
    said = "4 of 8 dev rows are scored between steps (--dev-sample), all of them at the end"
    assert said in answer.err.splitlines()
    assert answer.json["dev"]["rows"] == 8
