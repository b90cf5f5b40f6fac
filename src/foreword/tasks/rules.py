"""What a task asks of a row, as far as its settings say: for tasks, and for checks without a model.

Nothing large is imported here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from foreword.data.bad_rows import convert
from foreword.data.row import Row
from foreword.data.shapes import references_of, require
from foreword.errors import UserError, nearest
from foreword.tasks import gold
from foreword.tasks.candidates import candidates_of
from foreword.tasks.fields import fields_named
from foreword.tasks.registry import TASKS
from foreword.tasks.templates.template import Template

TEXT_SETTINGS = ("text_field", "prompt_field", "source_field", "token_field")
ANSWER_SETTINGS = ("label_field", "labels_field", "tag_field", "completion_field", "target_field")
"""Settings that name the field that is read, and the one that is learned; a task has one each."""


def labels_in(rows: Sequence[Row], field: str) -> list[str]:
    """Return the label of each row; raises UserError for a row without one."""
    require(rows, [field], mend="name its column with `label_field`")
    return [str(row.fields[field]) for row in rows]


def number_of(row: Row, field: str) -> float:
    """Return a row's number; raises UserError, ``FILE:LINE: ...``, where there is none."""
    require([row], [field], mend="name its column with `label_field`")
    value = row.fields[field]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        comma = isinstance(value, str) and re.fullmatch(r"\s*[-+]?[\d.]*,\d+\s*", value)
        wanted = "a number with a point, not a comma" if comma else "a number"
        raise UserError(
            f'{row.where}: field "{field}" is {value!r}, expected {wanted}; mend the row, or use '
            "`task=classify`"
        )
    return number


@dataclass(frozen=True)
class Rules:
    """The fields that a task reads and learns, and what each row must hold of them.

    ``inputs`` are all fields that may be read, ``read`` is the one that is usual, ``answer`` the
    one that is learned, None where the rows say which. ``names`` are the labels that there are,
    where the settings name them.
    """

    task: str
    inputs: tuple[str, ...]
    read: str | None
    answer: str | None
    template: Template | None
    names: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> bool:
        """Whether the answer is a number."""
        return self.task == "score"

    @property
    def one_label(self) -> bool:
        """Whether a row has one label, of classes or a number."""
        return _answer_setting(self.task) == "label_field"

    @property
    def classes(self) -> bool:
        """Whether the answer is one class, or several."""
        return not (self.numbers or self.writes or _answer_setting(self.task) is None)

    @property
    def writes(self) -> bool:
        """Whether the answer is a text in a field."""
        return _answer_setting(self.task) in ("completion_field", "target_field")

    def knowing(self, train: Sequence[Row]) -> Rules:
        """Return the rules for rows that are scored after a training on others."""
        read = LABELS.get(_answer_setting(self.task) or "")
        name = self.answer
        if self.names or self.numbers or read is None or name is None:
            return self
        every = convert(train, lambda row: read(row, name), lambda error: None)
        return replace(self, names=tuple(sorted({label for own in every for label in own})))

    def checked(self, row: Row) -> Row:
        """Return the row; raises UserError where a training would refuse it."""
        if self.template is not None:
            self.template.check(row.fields, row.where, shows=_shows(self.task))
        texts = [n for n in self.inputs if n in row.fields]
        if self.template is None and not texts and "messages" not in row.fields and self.read:
            texts = [self.read]
        require([row], [n for n in texts if not isinstance(row.fields.get(n), list)])
        if self.numbers and self.answer:
            number_of(row, self.answer)
        elif self.one_label and self.answer:
            (label,) = labels_in([row], self.answer)
            if self.names:
                gold.check_label(row, label, self.names)
        elif self.writes and self.answer and "messages" not in row.fields:
            require([row], [self.answer])
            references_of(row)
        elif self.writes and isinstance(row.fields.get("messages"), list):
            gold.check_learned(row, every=False)
        if (check := ROW_CHECKS.get(self.task)) is not None:
            check(row, self)
        return row


LABELS: Mapping[str, Callable[[Row, str], Sequence[str]]] = {
    "label_field": lambda row, field: labels_in([row], field),
    "labels_field": gold.labels_of,
    "tag_field": gold.tags_of,
}
"""How the labels of a row are read, by the setting that names their field."""


def _check_labels(row: Row, rules: Rules) -> None:
    gold.check_labels(row, str(rules.answer), rules.settings["none"], rules.names)


def _check_tags(row: Row, rules: Rules) -> None:
    gold.tags_of(row, str(rules.answer))
    gold.check_tags(row, str(rules.read), str(rules.answer), rules.names)


def _check_candidates(row: Row, rules: Rules) -> None:
    if "candidates" in row.fields:
        candidates_of(row, (), 0)
    elif rules.settings["catalogue"] is None:
        require([row], ["answer"])


def _check_turns(row: Row, rules: Rules) -> None:
    require([row], [] if isinstance(row.fields.get("messages"), list) else ["messages"])
    if isinstance(row.fields["messages"], list):
        gold.check_learned(row, every=rules.settings["turns"] == "all")


def _check_ends(row: Row, rules: Rules) -> None:
    names = [rules.settings[name] for name in ("text_field", "head_field", "tail_field")]
    gold.check_ends(row, *names)


ROW_CHECKS: Mapping[str, Callable[[Row, Rules], None]] = {
    "answer": lambda row, rules: gold.check_in_passage(row),
    "chat": _check_turns,
    "multilabel": _check_labels,
    "rank": _check_candidates,
    "relate": _check_ends,
    "tag": _check_tags,
}
"""What else a task asks of a row, by its name."""


def rules_of(task: str, given: Mapping[str, Any]) -> Rules:
    """Return what a task asks of rows, by its name and the settings that are given.

    Raises UserError for an unknown task or setting, and for a template that cannot be read.
    """
    if task not in TASKS:
        raise UserError(f"`task={task}`: unknown; {nearest(task, TASKS)}")
    settings = {each.name: each.default for each in TASKS.settings(task)} | dict(given)
    template = None if settings["template"] is None else Template.parse(settings["template"])
    text = next((name for name in TEXT_SETTINGS if name in settings), None)
    setting = _answer_setting(task)
    answer = settings[setting] if setting else None
    inputs = [name for name in fields_named(settings, text) if name != answer]
    names = tuple(map(str, settings.get("labels") or ()))
    read = settings[text] if text else None
    return Rules(task, tuple(inputs), read, answer, template, names, settings)


def _answer_setting(task: str) -> str | None:
    known = {each.name for each in TASKS.settings(task)}
    return next((name for name in ANSWER_SETTINGS if name in known), None)


def _shows(task: str) -> bool:
    return any(each.name == "shown" for each in TASKS.settings(task))
