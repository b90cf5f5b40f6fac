"""Which fields of a row a task reads and learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from foreword.tasks.templates.template import Template

if TYPE_CHECKING:
    from foreword.tasks.base import Task

LISTS = ("labels_field", "token_field", "tag_field")
"""Settings of fields that may hold a list, which the task itself checks."""


def fields_of(task: Task) -> list[str]:
    """Name the texts that a task reads and learns from, as far as its settings say.

    Without a template these are those of its settings, and the texts of a pair.
    """
    settings = {each.name: getattr(task, each.name) for each in fields(task)}  # type: ignore[arg-type]
    lists = {settings.get(name) for name in LISTS}
    return [name for name in fields_named(settings, task.text_setting) if name not in lists]


def fields_named(settings: Mapping[str, Any], text_setting: str | None) -> list[str]:
    """Name the fields of a task with these settings."""
    return list(dict.fromkeys(_names(dict(settings), text_setting)))


def _names(settings: dict[str, Any], text_setting: str | None) -> Iterator[str]:
    read = settings.pop(text_setting or "", None)
    if settings["template"] is None:
        yield from ("text_a", "text_b")
        if read is not None:
            yield read
    else:
        for name in Template.parse(settings["template"]).fields:
            yield read if read is not None and f"{name}_field" == text_setting else name
    for setting, name in settings.items():
        if setting.endswith("_field") and name is not None:
            yield name
