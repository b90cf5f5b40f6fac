"""The commands of docs/compose.md run, in their order, on a tiny model and fewer rows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.main import run
from foreword.data.read import read_rows
from foreword.data.sample import per_class
from toys import get, write

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compose.md").read_text("utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base: Any = get()
    base.model.save_pretrained(tmp_path / "model")
    base.text.tokenizer.save_pretrained(tmp_path / "model")
    rows = tmp_path / "examples" / "support"
    rows.mkdir(parents=True)
    for name in ("train", "dev", "test"):
        whole = read_rows(ROOT / "examples" / "support" / f"{name}.jsonl")
        write(rows / f"{name}.jsonl", per_class(whole, 1, 0, "label"))
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert {command[0] for command in found} == {"train", "compose", "predict", "library"}
    for command in found:
        more = [] if command[0] == "library" else ["--model", "model"]
        assert run([*command, *more]) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "mixed.safetensors").exists()
