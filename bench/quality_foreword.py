"""Foreword's systems: its presets, run by its own loop step by step, with caches that are empty."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from quality_tasks import Race, Rows, Task
from quality_trace import Judge

from foreword.backbone.backbone import Backbone
from foreword.config.values import from_plain
from foreword.errors import UserError, nearest
from foreword.methods.base import Method
from foreword.methods.registry import METHODS
from foreword.reporter import Reporter
from foreword.tasks.registry import TASKS
from foreword.training.examples import encode
from foreword.training.loop import Loop
from foreword.training.presets import PRESETS, RATE
from foreword.training.settings import Training

Presets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class System:
    """A preset as configurations, and ``plain`` as it was written.

    ``task`` holds what it changes in the task.
    """

    plain: Mapping[str, Any]
    method: Method
    training: Mapping[str, Any]
    task: Mapping[str, Any]


def presets(file: Path | None) -> Presets:
    """Return Foreword's presets with a prefix, or those of a JSON file of flat settings by name."""
    if file is None:
        return {name: {"method": "prefix", "rate": RATE, **own} for name, own in PRESETS.items()}
    try:
        read = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{file}: is no JSON ({error})") from None
    if not isinstance(read, dict) or not all(isinstance(v, dict) for v in read.values()):
        raise UserError(f"{file}: is no object of presets, each an object of settings")
    return read


def system(name: str, known: Presets) -> System:
    """Make configurations of a preset's flat settings; what is no method's goes to the training.

    Raises UserError for a preset that is not there, and for settings that nothing has.
    """
    if name not in known:
        raise UserError(f"no preset '{name}'; {nearest(name, known)}")
    given = dict(known[name])
    kind = given.pop("method", "prefix")
    if kind not in METHODS:
        raise UserError(f"preset '{name}': method '{kind}' is unknown; {nearest(kind, METHODS)}")
    where = f"preset '{name}'"
    training = _own(Training, given)
    method: Method = from_plain(METHODS[kind], _own(METHODS[kind], given), where)
    from_plain(Training, training, where).check()
    for key in given:
        if not any(key in _names(task) for task in TASKS.values()):
            raise UserError(f"{where}: '{key}' is no setting of its method, a task or training")
    return System(known[name], method, training, given)


def _own(kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Take the settings of a configuration out of the given ones."""
    names = _names(kind)
    return {key: given.pop(key) for key in list(given) if key in names}


def _names(kind: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


class ForewordRun:
    """A preset on its way through a task.

    The start, the trunk's pass over the training rows and compiling are counted: caches are
    empty, and nothing of another run is in them. A preset that names no batch size has the
    task's.
    """

    def __init__(
        self,
        chosen: System,
        backbone: Backbone,
        race: Race,
        rows: Rows,
        seed: int,
        report: Reporter,
    ) -> None:
        self.chosen, self.backbone, self.rows, self.seed = chosen, backbone, rows, seed
        settings = {"batch_size": race.batch, **chosen.training, "seed": seed}
        self.training = from_plain(Training, settings, "preset")
        self.report = report
        self.judge = Judge(rows.task.bind(backbone), rows.dev)
        self.worse, self.best = 0, -float("inf")
        self.held = ExitStack()
        self.held.enter_context(_empty_caches())

    @property
    def over(self) -> bool:
        """Whether the preset's patience is at its end."""
        return self.training.patience is not None and self.worse >= self.training.patience

    def begin(self) -> None:
        """Start the method, make tokens of the rows, and ready the loop."""
        bound = _changed(self.rows.task, self.chosen.task).bind(self.backbone)
        bound.check(self.rows.train, answers=True)
        method, training = self.chosen.method, self.training
        trainable = method.build(bound, self.rows.train, self.seed)
        examples = encode(
            self.backbone,
            bound,
            trainable.outline,
            self.rows.train,
            self.rows.dev,
            training,
            self.report,
        )
        self.loop = Loop(self.backbone, bound, trainable, examples, training, method.rate)
        self.per_epoch, self.steps = self.loop.per_epoch, self.loop.steps
        if training.checkpointing:
            self.held.callback(self.backbone.checkpointing, False)
            self.backbone.checkpointing(True)
        elif self.loop.compiles():
            self.held.enter_context(_compiling(self.backbone))
        if examples.lower is not None:
            self.held.callback(examples.lower.close)

    def step(self) -> None:
        """Take the loop's own step."""
        self.loop.step()

    def score(self) -> float:
        """Return the dev score; at the end of an epoch the preset's patience hears of it."""
        with torch.no_grad():
            injection = self.loop.trainable()
        found = self.judge(self.backbone, injection, self.loop.examples.lower)
        if self.loop.state.progress.step % self.per_epoch == 0:
            self.worse = 0 if found > self.best else self.worse + 1
            self.best = max(self.best, found)
        return found

    def close(self) -> None:
        """Leave the caches and the compiler as they were."""
        self.held.close()


def _changed(task: Task, settings: Mapping[str, Any]) -> Task:
    """Change what the preset says of this kind of task; the rest is of the other kind."""
    return replace(task, **{k: v for k, v in settings.items() if k in _names(type(task))})


@contextmanager
def _empty_caches() -> Iterator[None]:
    """Give Foreword a cache folder of its own, where no earlier run has left a trunk."""
    before = os.environ.get("FOREWORD_CACHE")
    with TemporaryDirectory() as folder:
        os.environ["FOREWORD_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["FOREWORD_CACHE"]
            if before is not None:
                os.environ["FOREWORD_CACHE"] = before


@contextmanager
def _compiling(backbone: Backbone) -> Iterator[None]:
    """Compile from nothing: neither this process nor the disk remembers an earlier run."""
    from torch._inductor.utils import fresh_cache  # late: it takes a second

    torch.compiler.reset()
    with fresh_cache():
        backbone.compiling(True)
        try:
            yield
        finally:
            backbone.compiling(False)
            torch.compiler.reset()
