"""Fusion: how several prompts' answers become one, and how well that does on rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Mixture
from foreword.prompt.prompt import Prompt
from foreword.tasks.rules import number_of

Floats = NDArray[np.float64]
Progress = Callable[[int], None]

FLOOR = 1e-38
"""The least probability of a label: what is below it in float32 has lost its digits."""


@dataclass(frozen=True)
class Poll:
    """Rows that all members are asked; ``progress`` is told how many more are done.

    ``on`` runs the passes of labels and numbers in place of the members' own backbone.
    """

    members: Sequence[Prompt]
    rows: Sequence[Row]
    progress: Progress | None
    on: Backbone | None = None


class Fusion(Protocol):
    """One way to fuse answers, for one kind of task."""

    @property
    def metric(self) -> str:
        """The name of the score that weights are fitted by, of which more is better."""

    @property
    def most(self) -> int:
        """How many weights may be tried, by what one costs."""

    def check(self, members: Sequence[Prompt]) -> None:
        """Raise UserError for members whose answers cannot be fused."""

    def answers(self, poll: Poll, weights: Sequence[float]) -> list[dict[str, Any]]:
        """Answer rows as a task's ``predict`` does, all members together."""

    def judge(self, poll: Poll, candidates: Floats) -> tuple[Floats, Floats]:
        """Score candidates (C, members): a score each, and what tells equal ones apart: (C,)."""


class LabelFusion:
    """A product of experts: ``p(y) ~ prod_i p_i(y)^w_i`` over the labels.

    That is the weighted sum of log-probabilities, or of logits, with the softmax taken anew
    (Hinton 2002, "Training products of experts by minimizing contrastive divergence").
    """

    metric = "accuracy"
    most = 2000

    def check(self, members: Sequence[Prompt]) -> None:
        """Raise UserError for different labels."""
        own = [member.task.class_names for member in members]
        for number, labels in enumerate(own[1:], 2):
            if labels != own[0]:
                raise UserError(
                    f"prompt {number} has the labels {', '.join(labels)}, and prompt 1 "
                    f"{', '.join(own[0])}; an ensemble needs the same labels"
                )

    def answers(self, poll: Poll, weights: Sequence[float]) -> list[dict[str, Any]]:
        """Return each row's label and the probabilities of all labels."""
        found = collected(poll)
        names, table = _table(found)
        made = []
        for number, chances in enumerate(np.exp(_product(table, np.array(weights)))):
            by_label = dict(zip(names, chances.tolist(), strict=True))
            best = max(by_label, key=lambda label: by_label[label])
            made.append({"label": best, "probabilities": by_label, "cut": _cut(found, number)})
        return made

    def judge(self, poll: Poll, candidates: Floats) -> tuple[Floats, Floats]:
        """Return accuracies in percent points, and mean log-probabilities of the right labels."""
        bound = poll.members[0].bound
        bound.check(poll.rows, answers=True)
        names, table = _table(collected(poll))
        gold = [names.index(str(bound.class_of(row))) for row in poll.rows]
        scores, means = [], []
        for weights in candidates:
            logs = _product(table, weights)  # (rows, labels)
            scores.append(100 * np.mean(logs.argmax(1) == gold))
            means.append(logs[np.arange(len(gold)), gold].mean())
        return np.array(scores), np.array(means)


class NumberFusion:
    """The weighted mean of the members' numbers."""

    metric = "pearson"
    most = 2000

    def check(self, members: Sequence[Prompt]) -> None:
        """Raise UserError for different ranges."""
        ranges = [(m.task.class_names[0], m.task.class_names[-1]) for m in members]
        first = ranges[0]
        for number, ends in enumerate(ranges[1:], 2):
            if ends != first:
                raise UserError(
                    f"prompt {number} scores from {ends[0]} to {ends[1]}, and prompt 1 from "
                    f"{first[0]} to {first[1]}; an ensemble needs one range"
                )

    def answers(self, poll: Poll, weights: Sequence[float]) -> list[dict[str, Any]]:
        """Return each row's number."""
        found = collected(poll)
        fused = np.array(weights) @ _numbers(found)  # (rows,)
        return [{"score": s, "cut": _cut(found, n)} for n, s in enumerate(fused.tolist())]

    def judge(self, poll: Poll, candidates: Floats) -> tuple[Floats, Floats]:
        """Return Pearson's correlations in percent points, and minus the mean squared errors."""
        poll.members[0].bound.check(poll.rows, answers=True)
        field = str(poll.members[0].task.label_field)
        gold = np.array([number_of(row, field) for row in poll.rows])
        fused = candidates @ _numbers(collected(poll))  # (C, rows)
        away, own = fused - fused.mean(1, keepdims=True), gold - gold.mean()
        lengths = np.sqrt((away**2).sum(1) * (own**2).sum())
        same = np.divide(away @ own, lengths, out=np.zeros(len(fused)), where=lengths > 1e-12)
        return 100 * same, -((fused - gold) ** 2).mean(1)


def collected(poll: Poll) -> list[list[dict[str, Any]]]:
    """Return each member's own answers; members of equal tasks are run in one batch."""
    members, rows, progress = poll.members, poll.rows, poll.progress
    found: list[list[dict[str, Any]]] = [[] for _ in members]
    told = None if progress is None else once(progress, len(members))
    for group in equal_tasks(members):
        own = [members[number] for number in group]
        bound, *_ = [member.bound for member in own]  # each is checked
        bound = bound if poll.on is None else bound.changed(backbone=poll.on)
        owners = [part for part in range(len(own)) for _ in rows]
        mixture = Mixture(tuple(member.injection for member in own), owners)
        asked = own[0].injection if len(own) == 1 else mixture
        answers = bound.predict(list(rows) * len(own), asked, progress=told)
        for place, number in enumerate(group):
            found[number] = answers[place * len(rows) : (place + 1) * len(rows)]
    return found


def equal_tasks(members: Sequence[Prompt]) -> list[list[int]]:
    """Group members with the same task that all have a head, or all have none."""
    groups: list[list[int]] = []
    for number, member in enumerate(members):
        headless = member.injection.head is None
        for group in groups:
            other = members[group[0]]
            if other.task == member.task and (other.injection.head is None) == headless:
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def once(progress: Progress, times: int) -> Progress:
    """Return what hears of every row ``times`` times, and tells of it once."""
    done = 0

    def told(count: int) -> None:
        nonlocal done
        before, done = done // times, done + count
        progress(done // times - before)

    return told


def _table(found: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[str], Floats]:
    """Return the labels, and the members' log-probabilities of them: (members, rows, labels)."""
    names = list(found[0][0]["probabilities"]) if found[0] else []
    chances = [[[each["probabilities"][n] for n in names] for each in own] for own in found]
    shape = (len(found), len(found[0]), len(names))
    return names, np.log(np.maximum(np.array(chances, dtype=np.float64).reshape(shape), FLOOR))


def _product(logs: Floats, weights: Floats) -> Floats:
    """Return fused log-probabilities: (members, rows, labels) -> (rows, labels)."""
    fused = np.tensordot(weights, logs, 1)
    fused = fused - fused.max(1, keepdims=True, initial=-np.inf)
    return np.asarray(fused - np.log(np.exp(fused).sum(1, keepdims=True)))


def _numbers(found: Sequence[Sequence[Mapping[str, Any]]]) -> Floats:
    return np.array([[each["score"] for each in own] for own in found], dtype=np.float64)


def _cut(found: Sequence[Sequence[Mapping[str, Any]]], row: int) -> bool:
    return any(own[row]["cut"] for own in found)
