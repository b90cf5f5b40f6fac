"""Several tasks at once: each row knows its task, and is learned and judged as that one says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.tasks.base import Bound, Task
from foreword.tasks.objective import Encoded, Objective


@dataclass(frozen=True)
class Replay:
    """Rows of a task that was learned before, mixed in while another is learned.

    Rehearsal (Robins 1995): ``share`` of an epoch's rows are these, and all of the others come
    once. The best is chosen by the other task's dev rows alone.
    """

    task: Task
    rows: Sequence[Row]
    share: float = 0.2

    def counts(self, others: int) -> dict[str, int]:
        """Return how many rows an epoch has of the new task and of the old one.

        Raises UserError for a share that is none.
        """
        if not 0 < self.share < 1:
            raise UserError(f"`replay_share={self.share:g}`: give a share above 0 and below 1")
        return {"new": others, "old": max(1, round(others * self.share / (1 - self.share)))}


class MixedObjective:
    """The tasks of one backbone as one objective; row and example say by ``task`` whose they are.

    The scores that are read are those of all tokens that any task asks for; each task is given
    its own again, in its own order.
    """

    def __init__(self, tasks: Sequence[Objective]) -> None:
        self.tasks = tuple(tasks)
        asked = [task.tokens for task in tasks]
        union = {token for own in asked for token in own or ()}
        self.tokens = None if None in asked else tuple(sorted(union))
        place = {token: n for n, token in enumerate(self.tokens or ())}
        self._columns = [
            None if own is None or own == self.tokens else [place.get(t, t) for t in own]
            for own in asked
        ]

    @property
    def metric(self) -> str:
        """The name of the tasks' dev score where they agree on one."""
        names = {task.metric for task in self.tasks}
        return names.pop() if len(names) == 1 else "score"

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row as its task learns it."""
        return replace(self.tasks[row.task].train_example(row, room), task=row.task)

    def dev_example(self, row: Row, room: int) -> Encoded:
        """Return the row as its task is judged by it."""
        return replace(self.tasks[row.task].dev_example(row, room), task=row.task)

    @property
    def sums_targets(self) -> bool:
        """Whether the loss of every task's rows is a sum over their targets."""
        return all(task.sums_targets for task in self.tasks)

    def units(self, item: Encoded) -> int:
        """Return how many the row counts as in its task."""
        return self.tasks[item.task].units(item)

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the loss of each row by its own task: (rows,)."""
        parts, order = [], []
        for task, rows, own in self._by_task(logits, items):
            parts.append(self.tasks[task].losses(own, [items[row] for row in rows]))
            order += rows
        place = torch.tensor(order, device=logits.device).argsort()
        return torch.cat(parts)[place]

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, ...]:
        """Return the sums of rows by their own tasks, added up where these have as many."""
        found = [
            self.tasks[task].dev_counts(own, [items[row] for row in rows])
            for task, rows, own in self._by_task(logits, items)
        ]
        return tuple(map(sum, zip(*found, strict=True)))

    def dev_score(self, sums: Sequence[float], task: int = 0) -> float:
        """Return the dev score of one task."""
        return self.tasks[task].dev_score(sums)

    def overall(self, scores: Sequence[float]) -> float:
        """Return the mean of the tasks' dev scores, in percent where their units differ.

        The dev rows may be of the first task alone, which others are mixed into.
        """
        judged = [task for task in self.tasks[: len(scores)] if isinstance(task, Bound)]
        if len({(task.metric, task.percent(-1.0)) for task in judged}) > 1:
            scores = [task.percent(score) for task, score in zip(judged, scores, strict=True)]
        return sum(scores) / len(scores)

    def _by_task(
        self, logits: Tensor, items: Sequence[Encoded]
    ) -> list[tuple[int, list[int], Tensor]]:
        """Part rows by their task, each with the scores of its own tokens at its targets."""
        tasks = sorted({item.task for item in items})
        each = torch.split(logits, [len(item.example.targets) for item in items])
        found = []
        for task in tasks:
            rows = [n for n, item in enumerate(items) if item.task == task]
            own = logits if len(tasks) == 1 else torch.cat([each[row] for row in rows])
            columns = self._columns[task]
            found.append((task, rows, own if columns is None else own[:, columns]))
        return found
