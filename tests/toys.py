"""A toy run, small enough to be repeated many times, and processes in which it can be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import foreword.prompt.prompt
import foreword.training.checkpoint
import foreword.training.dev_score
import foreword.training.examples
import foreword.training.log
import foreword.training.loop
import foreword.training.provenance
import foreword.training.run_state
import foreword.training.step
import foreword.training.tune
from families import CAUSAL, MASKED, SEQ2SEQ, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.classify import Classify
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.objective import Encoded
from foreword.training.settings import Training
from foreword.training.tune import tune_prompt
from processes import until

FAMILIES: dict[str, Family] = {f.name: f for f in [*CAUSAL, *MASKED, *SEQ2SEQ]}
TASK = Classify(template="{text} :", labels={"good": " good", "bad": " bad"})
TRAINING = Training(epochs=3, batch_size=4)
WORDS = ["film", "it", "was", "and", "a"]


@cache
def get(name: str = "llama", double: bool = False) -> Backbone:
    return backbone(FAMILIES[name], dtype=torch.float64 if double else torch.float32)


def rows(n: int, start: int = 0, file: str = "toy.jsonl") -> list[Row]:
    """Rows of two classes, each text of its own, as lines of a file."""
    made = []
    for i in range(start, start + n):
        label = ("good", "bad")[i % 2]
        text = f"{WORDS[i % 5]} {WORDS[i // 5 % 5]} {label if i % 3 else 'it'} {i}"
        made.append(Row({"text": text, "label": label, "completion": f"{label} film"}, ""))
    return [Row(row.fields, f"{file}:{n}") for n, row in enumerate(made, 1)]


def write(path: Path, given: list[Row]) -> Path:
    path.write_text("".join(json.dumps(dict(row.fields)) + "\n" for row in given), "utf-8")
    return path


def toy_run(out: Path | None, **changes: Any) -> Prompt:
    """A run of 9 steps and 4 evaluations, with a checkpoint after every step."""
    options: dict[str, Any] = {
        "task": TASK,
        "method": Soft(length=3),
        "train": rows(12),
        "dev": rows(6, 100, "dev.jsonl"),
        "training": TRAINING,
        "out": out,
    }
    return tune_prompt(get(), **{**options, **changes})


class Lines(Reporter):
    """Adds the lines that it hears to a list."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def line(self, text: str) -> None:
        self.heard.append(text)


def on_the_run(lines: list[str]) -> list[str]:
    """Leave out the line on the texts in its files, with which a run from demonstrations ends."""
    return [line for line in lines if "hold texts of your rows" not in line]


class Counts(Reporter):
    """Keeps the totals of bars by their names, and the rows that each was moved by."""

    def __init__(self) -> None:
        self.heard: dict[str, tuple[int, list[int]]] = {}

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        self.heard[name] = (total, [])
        yield self.heard[name][1].append


class Recorder(Reporter):
    """Writes down the steps and scores that it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        self.heard.append(("start", steps, done))

    def step(self, number: int, values: Mapping[str, float]) -> None:
        self.heard.append(("step", number, dict(values)))

    def score(self, number: int, metric: str, value: float) -> None:
        self.heard.append(("score", number, value))

    def done(self) -> None:
        self.heard.append(("done",))

    def of(self, kind: str) -> list[Any]:
        return [entry[2] for entry in self.heard if entry[0] == kind]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the evaluations to come have these dev scores."""
    coming = iter(scores)

    def judge(bound: Classifier, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        return next(coming) * len(items), len(items)

    monkeypatch.setattr(Classifier, "dev_counts", judge)


# Processes that end early ------------------------------------------------------------------------

_TRACED = {
    module.__file__
    for module in (
        foreword.training.tune,
        foreword.training.provenance,
        foreword.training.loop,
        foreword.training.step,
        foreword.training.dev_score,
        foreword.training.run_state,
        foreword.training.examples,
        foreword.training.checkpoint,
        foreword.training.log,
        foreword.prompt.prompt,
    )
}


def at_line(number: int, act: Callable[[], None]) -> Callable[[], int]:
    """Act before the given line, counted as they run, of training's own files; return the count."""
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == number:
                act()
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:
        return line if frame.f_code.co_filename in _TRACED else None

    sys.settrace(call)
    return lambda: count


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doomed_run(out: Path, line: int, resume: bool) -> None:
    """Run until a line of the training's code, and be killed there."""
    torch.set_num_threads(1)
    foreword.training.loop.SAVE_EVERY = 0.0
    at_line(line, die)
    toy_run(out, resume=resume)


def doomed_answers(arguments: list[str], at_once: int, row: int) -> None:
    """Run ``predict`` in parts of so many rows, and be killed before a row's answer is written."""
    from foreword.cli.main import run
    from foreword.evaluation import answer_file

    torch.set_num_threads(1)
    answer_file.AT_ONCE = at_once
    written, left = answer_file.answer_columns, [row]

    def counted(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            die()
        return written(*arguments, **options)

    answer_file.answer_columns = counted  # type: ignore[assignment]
    os._exit(run(arguments))


def command(arguments: list[str], errors: Path, pause_at: int) -> None:
    """Run a command line and exit as it does; pause after a step, until ``release`` is called."""
    from foreword.cli.main import run

    torch.set_num_threads(1)
    foreword.training.loop.SAVE_EVERY = 0.0
    step = foreword.training.log.Log.step

    def pausing(log: foreword.training.log.Log, number: int, values: Any) -> None:
        step(log, number, values)
        if number == pause_at:
            pause(errors)

    foreword.training.log.Log.step = pausing  # type: ignore[method-assign]
    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        status = run(arguments)
    os._exit(status)


def pause(path: Path) -> None:
    """Show beside ``path`` that this process pauses, and wait there until it is released."""
    path.with_suffix(".paused").touch()
    until(path.with_suffix(".released").exists)


def paused(path: Path) -> bool:
    return path.with_suffix(".paused").exists()


def release(path: Path) -> None:
    path.with_suffix(".released").touch()
