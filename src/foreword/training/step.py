"""One step of training: losses, gradients, clipping, AdamW."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.engine.mixup import Mix
from foreword.engine.passes import differentiate
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Trainable
from foreword.tasks.objective import Encoded, Objective, Parted
from foreword.training.examples import Examples
from foreword.training.regularise import Anchor, contrast, dropped, without_words
from foreword.training.settings import Training
from foreword.training.world import World


class NotFiniteError(UserError):
    """A loss, a gradient or a score is not finite any more."""


def adamw(trainable: Trainable, training: Training, rate: float) -> torch.optim.AdamW:
    """Return the optimizer of a method's parameters; each group has its ``base_rate``.

    That is the rate of ``training`` or, without one, the method's ``rate``, or that of the part
    of a joined method that the parameter is of.
    """

    def base_rate(name: str) -> float:
        if training.rate is not None:
            return training.rate
        return next((r for start, r in trainable.rates.items() if name.startswith(start)), rate)

    named = [(name, p) for name, p in trainable.named_parameters() if p.requires_grad]
    groups = [{"params": [p], "base_rate": base_rate(name)} for name, p in named]
    start = rate if training.rate is None else training.rate
    return torch.optim.AdamW(groups, lr=start, weight_decay=training.weight_decay)


def divisors(objective: Objective, items: Sequence[Encoded]) -> dict[int, float]:
    """Return what the losses of a batch's rows are divided by, for each task of the batch.

    Divided and summed they are the mean loss of the batch. A task's mean is over its units (rows,
    tokens ...), and enters by the task's share of the rows, whatever the other tasks' units are.
    """
    rows, units = Counter[int](), Counter[int]()
    for item in items:
        rows[item.task] += 1
        units[item.task] += objective.units(item)
    return {task: units[task] * (len(items) / rows[task]) for task in rows}


class Learner:
    """A method's parameters with their optimizer; ``step`` moves them once.

    Parameters that belong to one task (``Trainable.task_of``) move as they would alone: by that
    task's own mean loss, under a gradient that is clipped by itself.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        trainable: Trainable,
        examples: Examples,
        training: Training,
        rate: float,
        world: World,
    ) -> None:
        self.backbone, self.objective, self.trainable = backbone, objective, trainable
        self.examples, self.training, self.world = examples, training, world
        self.rate = rate if training.rate is None else training.rate
        self.parameters = [p for p in trainable.parameters() if p.requires_grad]
        self.optimizer = adamw(trainable, training, rate)
        self.by_task: dict[int | None, list[torch.nn.Parameter]] = {}
        for name, parameter in trainable.named_parameters():
            if parameter.requires_grad:
                self.by_task.setdefault(trainable.owner(name), []).append(parameter)
        self.anchor = Anchor(self.parameters, training.l2_start) if training.l2_start else None

    def step(self, chosen: Sequence[int], factor: float, seed: int) -> Mapping[str, float]:
        """Take a step on the chosen training rows, at the learning rates times ``factor``.

        ``seed`` decides what is dropped and mixed. Returns ``loss``, the mean over the rows,
        ``rate``, ``norm`` of the gradient before clipping, and ``rows``. With several processes
        each of them runs its part of the rows.

        Raises NotFiniteError, with nothing changed, for a loss or a gradient that is not finite.
        """
        train, objective = self.examples.train, self.objective
        divide = divisors(objective, [train[i] for i in chosen])
        places = self.world.share([train[i].example.length for i in chosen])
        items = [train[chosen[place]] for place in places]
        parted = Parted(items)
        seen: list[tuple[list[int], Tensor]] = []

        def loss(group: list[int], logits: Tensor) -> Tensor:
            losses = objective.losses(logits, parted.of(group, logits))
            seen.append((group, losses.detach()))
            own: dict[int, list[int]] = {}
            for n, i in enumerate(group):
                own.setdefault(items[i].task, []).append(n)
            return torch.stack([losses[n].sum() / divide[t] for t, n in sorted(own.items())]).sum()

        def alike(group: list[int], states: Tensor) -> Tensor:
            losses = contrast(states, [items[i].gold for i in group])
            return (self.training.contrastive or 0.0) / len(chosen) * losses.sum()

        for settings in self.optimizer.param_groups:
            settings["lr"] = settings["base_rate"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        part = 0.0
        if items:
            encoded = [item.example for item in items]
            rows = [chosen[place] for place in places]
            lower, mixup, plan = self.examples.lower, self.training.mixup, self.examples.plan
            chance = torch.Generator().manual_seed(seed)
            if share := self.training.word_dropout:
                encoded, lower = [without_words(each, share, chance) for each in encoded], None
            part = differentiate(
                self.backbone,
                lambda: self._injection(rows, chance),
                encoded,
                self.examples.lead,
                self.examples.longest,
                plan.tokens,
                loss,
                tokens=objective.tokens,
                given=None if lower is None else lower.given(encoded),
                mix=Mix.draw(mixup, chance) if mixup else None,
                on_states=alike if self.training.contrastive else None,
                scores=plan.scores,
                split=objective.sums_targets,
            )
        self.world.reduce(self.parameters)
        self._as_alone(Counter(train[i].task for i in chosen))
        if self.anchor is not None:
            self.anchor.pull()
        (total,) = self.world.total(part)
        clip, groups = self.training.clip, self.by_task.values()
        norm = math.hypot(*(float(torch.nn.utils.clip_grad_norm_(p, clip)) for p in groups))
        if not math.isfinite(total + norm):
            self._refuse(chosen, places, seen)
        self.optimizer.step()
        return {"loss": total, "rate": self.rate * factor, "norm": norm, "rows": len(chosen)}

    def _as_alone(self, rows: Mapping[int, int]) -> None:
        """Make the gradient of each task's parameters that of its own mean loss."""
        for task, parameters in self.by_task.items():
            if task is None or not rows[task]:
                continue
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(sum(rows.values()) / rows[task])

    def _injection(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return what the rows of a step are run under."""
        injection = self.trainable.training_on(rows, chance)
        if not self.training.dropout:
            return injection
        return dropped(injection, self.training.dropout, chance)

    def _refuse(
        self,
        chosen: Sequence[int],
        places: Sequence[int],
        seen: Sequence[tuple[list[int], Tensor]],
    ) -> NoReturn:
        """Raise NotFiniteError, naming the first row whose loss is not finite."""
        pairs = [pair for group, losses in seen for pair in zip(group, losses, strict=True)]
        mine = min((places[i] for i, value in pairs if not value.isfinite()), default=None)
        first = self.world.least(mine)
        where = "" if first is None else self.examples.train_rows[chosen[first]].where
        raise NotFiniteError(f"loss of {where}" if where else "gradient")
