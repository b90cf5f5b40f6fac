"""The wording of a search: its templates and label words, given or found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.prompt_search.parts import Parts
from foreword.prompt_search.space import TEMPLATE, VERBALIZER
from foreword.prompt_search.templates import ScoredTemplate, find_templates
from foreword.reporter import Reporter
from foreword.tasks.base import Task

FEW_LABELS = 10
"""The most labels whose words are searched for where no words are given."""


@dataclass(frozen=True)
class Wording:
    """A task that is completed from its rows, and what is chosen among.

    ``choices`` are those of a search, templates and label words among them. ``scored`` are the
    templates that were found, with the untouched model's scores.
    """

    task: Task
    choices: Mapping[str, Sequence[Any]]
    scored: Sequence[ScoredTemplate] = ()


def find_wording(
    task: Task,
    choices: Mapping[str, Sequence[Any]],
    train: Sequence[Row],
    parts: Parts,
    backbone: Backbone,
    known: Sequence[ScoredTemplate],
    *,
    seed: int,
    until: float,
    report: Reporter,
    clock: Callable[[], float],
) -> Wording:
    """Complete a task and find what its wording is chosen among, where that is not given.

    ``known`` are the templates that a study which goes on has found. Those that are not scored when
    the ``clock`` says ``until`` are left out. Raises UserError for rows and templates that do not
    fit.
    """
    choices = dict(choices)
    for name in (TEMPLATE, VERBALIZER):
        if name in choices and not hasattr(task, name):
            raise UserError(f"`{name}` is no setting of the task; leave it out")
    templates = choices.get(TEMPLATE, [task.template])
    every = [
        replace(task, template=each).complete(train, backbone)  # type: ignore[type-var]
        for each in templates
    ]
    for each in every:
        bound = each.bind(backbone)
        for _, dev in parts.folds:
            bound.check(dev, answers=True)
        bound.check([*train, *parts.held], answers=True)
    done, scored = every[0], list[ScoredTemplate]()
    if TEMPLATE in choices:
        choices[TEMPLATE] = [each.template for each in every]
    elif task.template is None:
        rows = parts.folds[0][0]
        scored = list(known) or find_templates(done, rows, backbone, seed, until, report, clock)
        if len(scored) > 1:
            choices[TEMPLATE] = [each.template for each in scored]
    words_given = getattr(task, "labels", None) is not None
    if VERBALIZER not in choices and not words_given and _has_words(done, backbone):
        choices[VERBALIZER] = ["manual", "search"]
    return Wording(done, choices, scored)


def _has_words(task: Task, backbone: Backbone) -> bool:
    """Whether a few labels are scored by the words of their names."""
    names = getattr(task, "labels", None) or ()
    manual = getattr(task, VERBALIZER, None) == "manual"
    return manual and not backbone.is_encoder and len(names) <= FEW_LABELS
