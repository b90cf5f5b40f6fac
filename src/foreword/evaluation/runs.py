"""The runs of a comparison: each a method with a seed, on a model, a task and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.config.values import plain
from foreword.data.row import Row
from foreword.data.sample import digest, draw, others
from foreword.evaluation.records import Record
from foreword.methods.base import Method
from foreword.tasks.base import Task
from foreword.tasks.registry import name_of
from foreword.training.settings import Training


@dataclass(frozen=True)
class ZeroShot:
    """The frozen model with the task's template alone; nothing is trained."""


@dataclass(frozen=True)
class Demonstrations:
    """The frozen model after rows with their answers as plain text; nothing is trained."""

    shots: int = 4


UNTRAINED: dict[str, type[ZeroShot] | type[Demonstrations]] = {
    "zero-shot": ZeroShot,
    "demonstrations": Demonstrations,
}


@dataclass(frozen=True)
class Data:
    """What is compared on. Each seed trains on its own ``rows``, or ``per_label`` of each label.

    Labels and ranges are found in all of them, so that every run has the same task.
    """

    train: Sequence[Row]
    test: Sequence[Row]
    dev: Sequence[Row] | None = None
    rows: int | None = None
    per_label: int | None = None

    def chosen(self, task: Task, seed: int) -> list[Row]:
        """Return the training rows of a seed; raises UserError where there are not so many."""
        return draw(self.train, self.rows, self.per_label, seed, task.label_field)

    def held(self, rows: Sequence[Row], task: Task, seed: int) -> Sequence[Row] | None:
        """Return the dev rows: those given, or for few rows a label as many others."""
        if self.dev is not None:
            return self.dev
        return others(self.train, rows, self.per_label, seed, task.label_field)

    def about(self) -> Record:
        """Return what tells these rows from others."""
        parts = {"train": self.train, "dev": self.dev, "test": self.test}
        found: Record = {
            name: {"rows": len(rows), "sha256": digest(rows)}
            for name, rows in parts.items()
            if rows is not None
        }
        if self.per_label is not None and self.dev is None:
            found["dev"] = "as many rows of each label"
        return {**found, "rows": self.rows, "per_label": self.per_label}


@dataclass(frozen=True)
class Model:
    """A backbone by its name, and how it is loaded."""

    name: str = "smollm2"
    dtype: str = "auto"
    device: str = "auto"
    quantize: str | None = None


@dataclass(frozen=True)
class Run:
    """A method with a seed, which is that of its training, on a model, a task and data."""

    name: str
    method: Method | ZeroShot | Demonstrations
    training: Training
    model: Model
    task: Task
    data: Data

    def identity(self, data: Record) -> Record:
        """Return all that the result depends on as plain values, ``data`` being the rows'."""
        trained = not isinstance(self.method, ZeroShot | Demonstrations)
        return {
            "method": self.name,
            "seed": self.training.seed,
            "settings": plain(self.method),
            "training": plain(self.training) if trained else None,
            "task": {"name": name_of(self.task), **plain(self.task)},
            "model": plain(self.model),
            "data": data,
        }
