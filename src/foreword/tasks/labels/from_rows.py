"""Known: what a task takes from its training rows beside labels: words, and rows to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.labels.autoprompt import autoprompt
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.labels.labelling import OneLabel
from foreword.tasks.labels.search import refine_label_words, search_label_words
from foreword.tasks.relate import Relate
from foreword.tasks.templates.demonstrations import draw

Words = Callable[[Classifier, Sequence[Row]], Mapping[str, Sequence[str]]]
WAYS: Mapping[str, Words] = {
    "search": search_label_words,
    "refine": refine_label_words,
    "autoprompt": autoprompt,
}
"""How label words are chosen by the training rows."""


def fill_from_rows(
    task: Task,
    backbone: Backbone,
    rows: Sequence[Row],
    seed: int,
    announce: Callable[[str], None] = lambda line: None,
) -> Task:
    """Return the task with its demonstrations drawn and its label words chosen, where it asks so.

    Both stand in it from then on, as plain values, and are not chosen again. Raises UserError for
    rows that cannot be used, or are too few.
    """
    if not isinstance(task, Classify | Relate):
        return task
    bound = task.bind(backbone)
    demos = bound.template.demos
    if demos is None and task.demos != "balanced":
        raise UserError(f"--demos {task.demos}: the template has no {{demos:N}}; give it a place")
    if demos is not None and task.shown is None:
        bound.check(rows, answers=True)
        drawn = draw(bound, [bound.key(r) for r in rows], rows, demos.count, task.demos, seed)
        needs = bound.labelling.needs if isinstance(bound.labelling, OneLabel) else ()
        names = dict.fromkeys((*bound.fields, *needs, task.label_field))
        task = replace(task, shown=[{n: str(row.fields[n]) for n in names} for row in drawn])
    if isinstance(task, Classify) and task.verbalizer != "manual":
        bound.check(rows, answers=True)
        labels = WAYS[task.verbalizer](task.bind(backbone), rows)
        told = "; ".join(f"{k} ={','.join(own)}" for k, own in labels.items())
        announce(f"label words: {told}")
        task = replace(task, labels=labels, verbalizer="manual")
    return task
