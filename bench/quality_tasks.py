"""What is raced for: three tasks, the rows of each, and the task as both sides are given it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.data.rows import as_rows
from foreword.data.sample import first, per_class
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate

Task = Classify | Generate
Files = tuple[Path, Path]
"""A task's rows: to train on, and to score on."""


@dataclass(frozen=True)
class Race:
    """A task and how much of its rows is used.

    ``rows`` counts those of each label where they are drawn ``by_label``. ``epochs`` are PEFT's;
    a preset of Foreword's has its own.
    """

    name: str
    task: Task
    rows: int
    dev_rows: int
    batch: int
    epochs: int
    seeds: int = 1
    by_label: bool = False


RACES = {
    race.name: race
    for race in (
        Race(
            "sst2",
            Classify(template="Review: {text}\nSentiment:", max_length=256),
            rows=256,
            dev_rows=400,
            batch=16,
            epochs=5,
            seeds=3,
        ),
        Race(
            "banking77",
            Classify(template="Query: {text}\nIntent:", max_length=256),
            rows=10,
            dev_rows=300,
            batch=16,
            epochs=5,
            by_label=True,
        ),
        Race(
            "tldr",
            Generate(
                template="Abstract: {prompt}\nTLDR:",
                max_length=256,
                decoding=Decoding(max_new_tokens=48),
            ),
            rows=200,
            dev_rows=60,
            batch=4,
            epochs=2,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Rows:
    """A race's rows for one seed, and its task with the labels that occur in them."""

    task: Task
    train: Sequence[Row]
    dev: Sequence[Row]


def rows_for(race: Race, files: Files, seed: int, backbone: Backbone) -> Rows:
    """Draw the training rows by the seed; the dev rows are the same for all seeds.

    Raises UserError for files that cannot be read, that are too short, or that do not fit.
    """
    found = as_rows(files[0])
    held = as_rows(files[1])
    if race.by_label:
        train = per_class(found, race.rows, seed, "label")
    else:
        train = first(found, race.rows, seed)
    dev = first(held, race.dev_rows, 0)
    task = race.task.complete(train, backbone)
    bound = task.bind(backbone)
    bound.check(train, answers=True)
    bound.check(dev, answers=True)
    return Rows(task, train, dev)
