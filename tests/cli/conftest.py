"""What the commands work on: a tiny model as a folder, rows as files, and a prompt made of them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foreword.cli.main import run
from toys import get, rows, write


@dataclass(frozen=True)
class Answer:
    """What a command gave: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def save_model(folder: Path, name: str = "llama") -> Path:
    base = get(name)
    base.model.save_pretrained(folder)
    base.text.tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class World:
    """A folder of the things that commands need."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def train(self, out: Path | str, *more: Path | str) -> list[str]:
        """The arguments of a short training, but for the flags that are given."""
        usual = {
            "--model": self.path("model"),
            "--train": self.path("train.jsonl"),
            "--dev": self.path("dev.jsonl"),
            "--template": "{text} :",
            "--epochs": "1",
            "--batch-size": "8",
            "--out": str(out),
        }
        kept = [word for flag in usual if flag not in more for word in (flag, usual[flag])]
        return ["train", *kept, *map(str, more)]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    save_model(folder / "model")
    save_model(folder / "other", "qwen2")
    save_model(folder / "masked", "bert")
    for name, n, start in (("train", 24, 0), ("dev", 8, 100), ("test", 12, 200)):
        write(folder / f"{name}.jsonl", rows(n, start))
    made = World(folder)
    for method, out in (("prefix", "p.safetensors"), ("soft", "soft.safetensors")):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            flags = ["--method", method, "--epochs", "2", "--test", made.path("test.jsonl")]
            assert run(made.train(made.path(out), *flags)) == 0, said.getvalue()
    return made


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process."""

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Answer(status, shown.out, shown.err)

    return call
