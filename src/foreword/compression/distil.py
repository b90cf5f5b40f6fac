"""Distillation: an injection is trained to give a model the predictions it has under another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, behind
from foreword.data.row import Row
from foreword.engine.passes import infer, states_of
from foreword.injection import Injection
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded, mean, sum_by_row
from foreword.tasks.templates.layout import room_for


class Distillation:
    """An objective: to predict every token of a row as a teacher does.

    The teacher is the backbone itself under an injection that holds more, such as the keys and
    values of a long text (context distillation, Snell et al. 2022, arXiv:2209.15189). The loss of
    a row is the sum over its tokens of KL(teacher || student) in nats, over the whole vocabulary.
    The teacher's last hidden states are stored, not its logits: these would take more memory by the
    ratio of vocabulary to hidden size.
    """

    metric = "-KL"
    tokens = None
    dev_score = staticmethod(mean)

    def __init__(
        self,
        task: Bound,
        teacher: Injection,
        rows: Sequence[Row],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.task, self.teacher = task, teacher
        self.room = room_for(task.backbone, teacher)
        examples = [self.train_example(row, self.room).example for row in rows]
        found = states_of(task.backbone, teacher, examples, progress)
        self.states: Mapping[Example, Tensor] = dict(zip(examples, found, strict=True))

    def train_example(self, row: Row, room: int) -> Encoded:
        """Return the row with every token as a target, laid out as it is for the teacher."""
        item = self.task.train_example(row, self.room)
        (read,) = behind([item.example], self.teacher)
        whole = (*read.ids, *read.branches[0])
        targets = tuple((0, place) for place in range(-1, len(whole) - 1))
        example = Example(whole[:1], 1, (whole[1:],), targets)
        return replace(item, example=example, gold=len(targets))

    dev_example = train_example

    @property
    def sums_targets(self) -> bool:
        """Whether some targets may be taken at a time: the teacher's are found by the whole row."""
        return False

    def overall(self, scores: Sequence[float]) -> float:
        """Return the score of the one task that this is."""
        (score,) = scores
        return score

    def units(self, item: Encoded) -> int:
        """Return the number of its tokens."""
        return item.gold

    def losses(self, logits: Tensor, items: Sequence[Encoded]) -> Tensor:
        """Return the KL divergence of each row, summed over its tokens: (rows,)."""
        each = divergence(self._teacher_logits(items), logits)
        return sum_by_row(each, [item.gold for item in items])

    def dev_counts(self, logits: Tensor, items: Sequence[Encoded]) -> tuple[float, int]:
        """Return the negative KL divergence, summed, and the number of tokens."""
        return -float(self.losses(logits, items).sum()), sum(item.gold for item in items)

    def agreement(
        self,
        injection: Injection,
        rows: Sequence[Row],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> dict[str, float]:
        """Compare a student with the teacher: ``kl`` in nats per token, ``top1`` in percent.

        ``top1`` is how often both give the same token the highest probability.
        """
        items = [self.train_example(row, self.room) for row in rows]
        total, same, count = 0.0, 0, 0
        examples = [item.example for item in items]
        for group, logits in infer(self.task.backbone, injection, examples):
            taught = self._teacher_logits([items[i] for i in group])
            total += float(divergence(taught, logits).sum())
            same += int((taught.argmax(1) == logits.argmax(1)).sum())
            count += len(logits)
            progress(len(group))
        return {"kl": total / count, "top1": 100 * same / count}

    @torch.no_grad()
    def _teacher_logits(self, items: Sequence[Encoded]) -> Tensor:
        """Return the teacher's logits at the targets of rows: (targets, vocabulary)."""
        backbone: Backbone = self.task.backbone
        states = torch.cat([self.states[item.example] for item in items])
        return backbone.logits(states.to(backbone.device))


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(teacher || student) in nats for each row of logits: (N, V) -> (N,)."""
    expected = F.log_softmax(teacher.float(), 1)
    return F.kl_div(
        F.log_softmax(student.float(), 1), expected, reduction="none", log_target=True
    ).sum(1)
