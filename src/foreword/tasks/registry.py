"""All tasks by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from foreword.tasks.answer import Answer
from foreword.tasks.base import Task
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.rank import Rank
from foreword.tasks.relate import Relate
from foreword.tasks.score import Score
from foreword.tasks.summarize import Summarize
from foreword.tasks.tag import Tag
from foreword.tasks.translate import Translate

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "answer": Answer,
    "chat": Chat,
    "generate": Generate,
    "multilabel": Multilabel,
    "rank": Rank,
    "relate": Relate,
    "score": Score,
    "summarize": Summarize,
    "tag": Tag,
    "translate": Translate,
}


def name_of(task: Task) -> str:
    """Return the name under which a task's class is registered."""
    return next(name for name, kind in TASKS.items() if isinstance(task, kind))
