"""First tokens alone, from the command line: trained on, kept, and scored over their number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_mistakes import refused

Cli = Callable[..., Any]


def test_a_window_is_trained_and_kept_and_scored(world: Any, tmp_path: Path, cli: Cli) -> None:
    out, data = tmp_path / "p.safetensors", ("--data", world.path("test.jsonl"))
    assert cli(*world.train(out, "--input-window", "3")).status == 0
    assert cli("info", out, "--json").json["task"]["input_window"] == 3
    told = cli("eval", out, *data, "--windows", "3,all", "--json").json
    assert [each["window"] for each in told["curve"]] == [3, None]
    whole = cli("eval", out, *data, "--json").json
    assert told["curve"][0]["accuracy"] == whole["accuracy"]
    shown = cli("eval", out, *data, "--windows", "1,2,3,all").out
    first, *lines = shown.splitlines()
    assert first.endswith("12 rows, 95% intervals")
    assert [line.split()[0] for line in lines] == ["tokens", "1", "2", "3", "all"]
    assert all(len(line) <= 80 for line in lines)
    assert "█" * 40 in shown


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--windows", "4,many"], "--windows 4,many: write numbers of tokens, as in 4,8,16,all"),
        (["--windows", "0"], "--windows 0: write numbers of tokens"),
        (["--windows", "4,4"], "--windows 4,4: names 4 twice"),
        (["--windows", "4", "--baselines"], "leave out --baselines"),
    ],
)
def test_mistakes_in_windows(flags: list[str], part: str, world: Any, cli: Cli) -> None:
    prompt, data = world.path("p.safetensors"), world.path("test.jsonl")
    refused(cli("eval", prompt, "--data", data, *flags), part)


def test_a_window_of_nothing(world: Any, tmp_path: Path, cli: Cli) -> None:
    answer = cli(*world.train(tmp_path / "p.safetensors", "--input-window", "0"))
    assert answer.status == 2
    assert answer.err.splitlines()[-1].startswith("foreword: --input-window 0: give 1 or more")
    assert not list(tmp_path.glob("*.safetensors"))


def test_tasks_that_need_whole_fields_say_so(world: Any, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "p.safetensors"
    arguments = world.train(out, "--task", "tag", "--input-window", "3")
    refused(cli(*arguments), "--input-window is no setting of task tag")
