"""All tasks by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.config.registry import Registry

if TYPE_CHECKING:
    from foreword.tasks.base import Task

TASKS: Registry[Task] = Registry(
    "task",
    {
        "classify": "foreword.tasks.classify:Classify",
        "answer": "foreword.tasks.answer:Answer",
        "chat": "foreword.tasks.chat:Chat",
        "generate": "foreword.tasks.generate:Generate",
        "multilabel": "foreword.tasks.multilabel:Multilabel",
        "rank": "foreword.tasks.rank:Rank",
        "relate": "foreword.tasks.relate:Relate",
        "score": "foreword.tasks.score:Score",
        "summarize": "foreword.tasks.summarize:Summarize",
        "tag": "foreword.tasks.tag:Tag",
        "translate": "foreword.tasks.translate:Translate",
    },
)


def name_of(task: Task) -> str:
    """Return the name under which a task's class is registered; raises UserError for none."""
    return TASKS.name_of(task)
