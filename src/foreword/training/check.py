"""Check rows for a task on a model: by what the training itself would refuse, and cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.data.bad_rows import BadRows, convert
from foreword.data.check import NO_FIELD, Lengths
from foreword.data.check import check as check_rows
from foreword.data.lookalikes import ENDS
from foreword.data.problems import Checked, with_refusals
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.shapes import canonical
from foreword.errors import UserError
from foreword.injection import NOTHING
from foreword.tasks.base import Bound, Task
from foreword.tasks.templates.layout import room_for
from foreword.training.configure import make_task


def check(
    train: Rows,
    dev: Rows | None = None,
    test: Rows | None = None,
    *,
    task: Task | str = "classify",
    model: Backbone | str | Path = "smollm2",
    text: str | None = None,
    label: str | None = None,
    **settings: Any,
) -> Checked:
    """Say what rows hold and what is wrong with them for a task on a model.

    The rows are read, the task is completed from them, and every row is laid out as ``tune`` does
    it, by the same functions; beside what a training refuses stand warnings. Of a model that is
    named, the tokenizer is read and no weights. ``settings`` are those of the task.

    Raises UserError for unknown settings, and where no rows can be read.
    """
    made = make_task(task, settings, text, label)
    if settings:
        raise UserError(f"`{next(iter(settings))}` is no setting of the task; leave it out")
    given = {"train": train, "dev": dev, "test": test}
    bad = {name: BadRows() for name in given}
    splits = {
        name: as_rows(rows, fields=made.pair, name=f"{name} row", on_bad=bad[name])
        for name, rows in given.items()
        if rows is not None
    }
    for name, rows in splits.items():
        bad[name].check(rows)
    backbone = model if isinstance(model, Backbone) else Backbone.outline(str(model))
    errors = {name: [str(error) for error in each.errors] for name, each in bad.items()}
    return check_for(made, backbone, splits, errors)


def check_for(
    task: Task,
    backbone: Backbone,
    splits: Mapping[str, Sequence[Row]],
    refused: Mapping[str, Sequence[str]] | None = None,
    *,
    unread: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Checked:
    """Check splits for a task on a backbone; the first one is trained on.

    ``refused`` are errors of rows that are left out already. ``unread`` and ``progress`` are those
    of :func:`foreword.data.check.check`.
    """
    bad = {name: BadRows() for name in splits}
    rows = {name: canonical(own, on_bad=bad[name])[1] for name, own in splits.items()}
    errors = {
        name: [*(refused or {}).get(name, ()), *map(str, bad[name].errors)] for name in splits
    }
    bound = _bound(task, backbone, rows, errors)
    cut: dict[str, list[str]] = {}
    for name, own in rows.items():
        progress(len(splits[name]))
        if bound is None:
            continue
        again = BadRows()
        cut[name] = [where for where in convert(own, _laid_out(bound), again) if where]
        errors[name] += _once(again, own)
    several = bound is not None and bool(bound.classes) and task.label_field is None
    if bound is not None and several:
        rows = {name: _with_lists(bound, task.pair[1], own) for name, own in rows.items()}
    tokenizer = backbone.text.tokenizer
    classes = task.fusion == "labels" or several
    found = check_rows(
        {name: own or splits[name] for name, own in rows.items()},
        fields=None if bound is None else bound.fields,
        label_field=task.pair[1] if classes else NO_FIELD,
        classes=classes,
        special=[*dict.fromkeys((*tokenizer.all_special_tokens, *ENDS))],
        lengths=in_tokens(backbone, task.max_length),
        unread=unread,
    )
    return with_refusals(found, errors, cut)


def in_tokens(backbone: Backbone, most: int) -> Lengths:
    """Return how long rows are in a model's tokens; half a character counts as one sign."""

    def count(text: str) -> int:
        return len(backbone.text.ids(text.encode("utf-8", "replace").decode()))

    return Lengths(count, "tokens", most)


def _bound(
    task: Task,
    backbone: Backbone,
    rows: Mapping[str, list[Row]],
    errors: Mapping[str, list[str]],
) -> Bound | None:
    """Return the task as a training binds it, None where it cannot; take out rows that stop it."""
    train = next(iter(rows))
    while rows[train]:
        try:
            made = _without_search(task.complete(rows[train], backbone))
            return made.fill_from_rows(backbone, rows[train], 0).bind(backbone)
        except UserError as error:
            errors[train].append(str(error))
            stopped = [row for row in rows[train] if str(error).startswith(f"{row.where}: ")]
            if not stopped or len(errors[train]) > MOST:
                return None
            rows[train].remove(stopped[0])
    return None


MOST = 100
"""Rows that stop the making of a task, after which no others are looked for."""


def _without_search(task: Task) -> Task:
    """Return the task with nothing that needs the model's answers: label words as they stand."""
    plain = {"verbalizer": "manual", "calibration": "none"}
    if getattr(task, "demos", None) == "nearest":
        plain["demos"] = "balanced"
    known = {each.name for each in dataclasses.fields(task)}  # type: ignore[arg-type]
    return dataclasses.replace(task, **{n: v for n, v in plain.items() if n in known})  # type: ignore[type-var]


def _laid_out(bound: Bound) -> Callable[[Row], str | None]:
    """Return what lays a row out as a training does, and gives its place where it is cut."""
    room = room_for(bound.backbone, NOTHING)

    def lay_out(row: Row) -> str | None:
        bound.check([row], answers=True)
        return row.where if bound.train_example(row, room).truncated else None

    return lay_out


def _with_lists(bound: Bound, field: str, rows: Sequence[Row]) -> list[Row]:
    """Return rows that have several labels with these as a list, however they are written."""
    made = []
    for row in rows:
        try:
            labels = bound.gold_answer(row)
        except UserError:  # which is refused already
            continue
        made.append(Row({**row.fields, field: labels}, row.where, row.task))
    return made


def _once(bad: BadRows, rows: Sequence[Row]) -> Iterator[str]:
    """Yield errors, one that is of no row once alone."""
    places = {row.where for row in rows}
    seen = set()
    for error in map(str, bad.errors):
        if error.partition(": ")[0] in places or error not in seen:
            yield error
        seen.add(error)
