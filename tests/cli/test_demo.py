"""What the demo says to do next runs as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from foreword.cli.commands import app
from foreword.cli.demo import commands, folder


def test_what_comes_next_are_commands_of_files_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/env of mine/bin/foreword", "demo"])
    monkeypatch.setenv("PATH", "")
    lines = commands(tmp_path / "my out" / "p.safetensors", folder() / "train.jsonl")
    words = [shlex.split(line, comments=True) for line in lines]
    assert [each[:2] for each in words] == [
        ["/env of mine/bin/foreword", name] for name in ("predict", "labels", "train")
    ]
    for each in words:
        app.parse_args(each[1:], exit_on_error=False, print_error=False)
    assert Path(words[2][3]).exists()
