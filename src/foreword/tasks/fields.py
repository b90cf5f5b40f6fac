"""Which fields of a row a task reads and learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from foreword.tasks.templates.template import Template

if TYPE_CHECKING:
    from foreword.tasks.base import Task

MAY_BE_EMPTY = ("labels_field",)
"""Settings of fields in which nothing is an answer too."""


def text_fields_of(task: Task) -> list[str]:
    """Name the fields that must be texts, as a task reads them and learns from them.

    Without a template these are those of its settings, and the texts of a pair; none of a task
    whose fields may be lists, and no conversation.
    """
    settings = {each.name: getattr(task, each.name) for each in fields(task)}  # type: ignore[arg-type]
    named = [] if task.takes_lists else fields_named(settings, task.text_setting)
    return [name for name in named if name != "messages"]


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
        if setting.endswith("_field") and setting not in MAY_BE_EMPTY and name is not None:
            yield name
