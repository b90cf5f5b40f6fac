"""The runs of a comparison: a method with a seed, on a model, a task and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.config.values import hash_of, plain
from foreword.data.folder import DEV, TEST
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
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
    """The frozen model after rows with their answers as plain text; nothing is trained.

    Without ``shots`` there are 4, or one of each label if these are short.
    """

    shots: int | None = None


@dataclass(frozen=True)
class Probe:
    """Scikit-learn's logistic regression on the frozen model's states; of numbers, a ridge one."""


Untrained = ZeroShot | Demonstrations | Probe
"""What is compared without tuning a prompt."""

UNTRAINED: dict[str, type[Untrained]] = {
    "zero-shot": ZeroShot,
    "demonstrations": Demonstrations,
    "probe": Probe,
}


@dataclass(init=False)
class Data:
    """The rows of a comparison. Each seed trains on ``rows`` of them, or ``per_label`` of a label.

    Labels and ranges are read from all training rows, so that every run has the same task.
    ``train``, ``test`` and ``dev`` are whatever holds rows (data/rows.py); ``task`` says which
    fields ``(texts, labels)`` are.
    """

    train: list[Row]
    test: list[Row]
    dev: list[Row] | None
    rows: int | None
    per_label: int | None

    def __init__(
        self,
        train: Rows,
        test: Rows,
        dev: Rows | None = None,
        rows: int | None = None,
        per_label: int | None = None,
        *,
        task: Task | None = None,
    ) -> None:
        pair = ("text", "label") if task is None else task.pair
        self.train = as_rows(train, fields=pair)
        self.test = as_rows(test, split=TEST, name="test row", fields=pair)
        dev = None if dev is None else as_rows(dev, split=DEV, name="dev row", fields=pair)
        self.dev = dev
        self.rows, self.per_label = rows, per_label

    def chosen(self, task: Task, seed: int) -> list[Row]:
        """Return the training rows of a seed; raises UserError if there are too few."""
        return draw(self.train, self.rows, self.per_label, seed, task.class_field)

    def held(self, rows: Sequence[Row], task: Task, seed: int) -> Sequence[Row] | None:
        """Return the dev rows: those given, or with ``per_label`` as many other training rows."""
        if self.dev is not None:
            return self.dev
        return others(self.train, rows, self.per_label, seed, task.class_field)

    def about(self) -> Record:
        """Describe the rows by their numbers and hashes."""
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
    architecture: str = "auto"
    pooling: str = "auto"

    def about(self) -> Record:
        """Describe it; what a record of before has no word for is left out where it is usual."""
        later = {"architecture", "pooling"}
        return {n: v for n, v in plain(self).items() if n not in later or v != "auto"}


@dataclass(frozen=True)
class Run:
    """A method on a model, a task and data; the seed is that of ``training``."""

    name: str
    method: Method | Untrained
    training: Training
    model: Model
    task: Task
    data: Data

    def identity(self, data: Record) -> Record:
        """Return all that the results depend on, as plain values; ``data`` describes the rows."""
        trained = not isinstance(self.method, Untrained)
        return {
            "method": self.name,
            "seed": self.training.seed,
            "settings": plain(self.method),
            "training": plain(self.training) if trained else None,
            "task": {"name": name_of(self.task), **plain(self.task)},
            "model": self.model.about(),
            "data": data,
        }


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that differ in what their results depend on, the first of equals.

    In a sweep over settings that not all methods have, those without them occur again and again.
    """
    abouts = {id(run.data): run.data.about() for run in runs}
    found = {hash_of(run.identity(abouts[id(run.data)])): run for run in reversed(runs)}
    return list(reversed(found.values()))
