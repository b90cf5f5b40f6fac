"""What fuzzed commands work on: a tiny model that is opened once, and prompts made on it."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from foreword.backbone.backbone import Backbone
from foreword.cli.commands import app
from foreword.cli.main import run
from toys import get, rows, write


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    status: int
    out: str
    err: str


def call(*words: object) -> Answer:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run([str(word) for word in words])
    return Answer(status, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class World:
    """A folder with a model, rows and prompts; ``fresh`` is emptied before each case."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    @property
    def fresh(self) -> Path:
        """Return the folder for one case, empty."""
        made = self.folder / "case"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        return made

    def train(self, *more: object) -> list[object]:
        """The arguments of a short training, to which ``more`` are added."""
        usual = {"--model": self["model"], "--train": self["train.jsonl"], "--epochs": 1}
        words = [
            word for flag, value in usual.items() if flag not in more for word in (flag, value)
        ]
        return ["train", *words, *more]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Make a world; while it lasts, a model is opened once for each way to open it.

    The same words are parsed once: that takes longer than what most commands do.
    """
    load = Backbone.load

    @lru_cache(maxsize=8)
    def opened(name: str, options: tuple[tuple[str, Any], ...]) -> Backbone:
        return load(name, **dict(options))

    def once(name: str = "smollm2", *, report: Any = None, **options: Any) -> Backbone:
        return opened(str(name), tuple(sorted(options.items())))

    parse = app.parse_args

    @lru_cache(maxsize=4096)
    def parsed(words: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> Any:
        return parse(list(words), **dict(options))

    def parse_once(words: list[str], **options: Any) -> Any:
        return parsed(tuple(words), tuple(options.items()))

    with (
        tempfile.TemporaryDirectory() as name,
        patch.object(Backbone, "load", once),
        patch.object(type(app), "parse_args", staticmethod(parse_once)),
    ):
        made = World(Path(name))
        base = get()
        base.model.save_pretrained(made["model"])
        base.text.tokenizer.save_pretrained(made["model"])
        for part, count, start in (("train", 8, 0), ("dev", 4, 100)):
            write(made[f"{part}.jsonl"], rows(count, start))
        template = ["--template", "{text} :"]
        writes = ["--task", "generate", "--template", "{prompt} :", "--max-new-tokens", "3"]
        asked = [
            {"prompt": row.fields["text"], "completion": row.fields["completion"]}
            for row in rows(8)
        ]
        write(made["asked.jsonl"], [type(rows(1)[0])(each) for each in asked])
        for out, more in {
            "classify": template,
            "soft": [*template, "--method", "soft"],
            "lora": [*template, "--method", "lora"],
            "generate": [*writes, "--train", made["asked.jsonl"]],
        }.items():
            answer = call(*made.train(*more, "--out", made[f"{out}.safetensors"]))
            assert answer.status == 0, answer.err
        yield made
