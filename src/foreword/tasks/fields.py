"""Which fields of a row a task reads and learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from foreword.tasks.base import Task
from foreword.tasks.templates.template import Template

MAY_BE_EMPTY = ("labels_field",)
"""Settings of fields in which nothing is an answer too."""


def fields_of(task: Task) -> list[str]:
    """Name the fields that a task reads and learns from, as far as its settings say.

    Without a template these are those of its settings, and the texts of a pair.
    """
    return list(dict.fromkeys(_names(task)))


def _names(task: Task) -> Iterator[str]:
    named = {each.name: getattr(task, each.name) for each in fields(task)}  # type: ignore[arg-type]
    read = named.pop(task.text_setting or "", None)
    if task.template is None:
        yield from ("text_a", "text_b")
        if read is not None:
            yield read
    else:
        for name in Template.parse(task.template).fields:
            yield read if read is not None and f"{name}_field" == task.text_setting else name
    for setting, name in named.items():
        if setting.endswith("_field") and setting not in MAY_BE_EMPTY and name is not None:
            yield name
