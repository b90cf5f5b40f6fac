"""The loop: AdamW on a method's parameters; the best dev score is kept, every step resumable."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import common_lead
from foreword.data.epochs import epoch_order
from foreword.data.row import Row
from foreword.engine.lower_layers import LowerLayers
from foreword.engine.mixup import Mix
from foreword.engine.passes import differentiate, infer, token_budget
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Trainable
from foreword.reporter import Reporter
from foreword.tasks.base import Objective
from foreword.tasks.templates.layout import room_for
from foreword.training import checkpoint
from foreword.training.interrupt import Interrupted, interruptible
from foreword.training.regularise import Anchor, dropped
from foreword.training.settings import Training
from foreword.training.world import ALONE, World

SAVE_EVERY = 20.0
"""Seconds between checkpoints within an epoch, more where writing one takes long; there is one
after every evaluation too."""

WORTH_COMPILING = 300
"""Steps from which on compiling is taken to pay; what it costs and gains is in bench/README.md."""


STATES_AT_ONCE = 256
"""Dev rows whose stored states are brought together at once."""


class NotFiniteError(UserError):
    """A loss, a gradient or a score is not finite any more."""


class Loop:
    """One run: its examples, its optimizer, and its place between the first step and the last."""

    def __init__(
        self,
        backbone: Backbone,
        bound: Objective,
        trainable: Trainable,
        training: Training,
        rate: float,
        report: Reporter,
        world: World = ALONE,
    ) -> None:
        self.backbone, self.bound, self.trainable = backbone, bound, trainable
        self.training, self.report, self.world = training, report, world
        self.rate = training.rate if training.rate is not None else rate
        self.trained = [p for p in trainable.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p], "own": self._rate_of(name)}
                for name, p in trainable.named_parameters()
                if p.requires_grad
            ],
            lr=self.rate,
            weight_decay=training.weight_decay,
        )
        self.budget = training.token_budget or token_budget(backbone)
        self.progress = checkpoint.Progress(run="")
        self.best: dict[str, Tensor] = {}
        self.path: Path | None = None
        self.pace: Callable[[int], float] = self._scheduled
        self.saved, self.saving = time.monotonic(), 0.0
        self.anchor = Anchor(self.trained, training.l2_start) if training.l2_start else None

    def _scheduled(self, step: int) -> float:
        """Return what learning rates are multiplied by at a step, after the run's settings."""
        return self.training.factor(step, self.steps, self.progress.halved)

    def _rate_of(self, name: str) -> float:
        """Return a parameter's learning rate: that of the run, or its method's among several."""
        if self.training.rate is not None:
            return self.training.rate
        own = (r for start, r in self.trainable.rates.items() if name.startswith(start))
        return next(own, self.rate)

    def encode(
        self, train: Sequence[Row], dev: Sequence[Row], counts: Mapping[str, int] | None = None
    ) -> None:
        """Turn rows into examples once, and say how many were cut.

        ``counts`` says, by the names of several tasks, how many rows of each an epoch has.
        """
        room = room_for(self.backbone, self.trainable.outline)
        self.rows, self.held = train, dev
        self.items = [self.bound.train_example(row, room) for row in train]
        self.dev = [self.bound.dev_example(row, room) for row in dev]
        for name, items in (("training", self.items), ("dev", self.dev)):
            cut = sum(item.truncated for item in items)
            if cut:
                self.report.line(f"{cut} of {len(items)} {name} rows were too long and were cut")
            parted = sum(item.windows > 1 for item in items)
            if parted:
                self.report.line(
                    f"{parted} of {len(items)} {name} rows were parted in windows; the first "
                    "with an answer is learned"
                )
        if self.training.mixup and any(len(item.example.targets) != 1 for item in self.items):
            raise UserError(
                "--mixup mixes rows that are scored at one token each; give labels of one token, "
                "or use a head"
            )
        self.lead = common_lead(item.example for item in self.items)
        self.longest = max(item.example.length for item in self.items)
        self.trunk = self._trunk(self.trainable.outline)
        self.names = tuple(counts or ("",))
        self.counts = tuple((counts or {"": len(train)}).values())
        self.per_epoch = -(-sum(self.counts) // self.training.batch_size)
        self.steps = self.per_epoch * self.training.epochs

    def own(self, task: int) -> list[Row]:
        """Return the training rows of one of several tasks."""
        return [row for row in self.rows if row.task == task]

    def _trunk(self, injection: Injection | Mixture) -> LowerLayers | None:
        """Keep what lies below the prompt's lowest layer, where something does."""
        if isinstance(injection, Mixture):
            return None
        examples = [item.example for item in (*self.items, *self.dev)]
        layer = LowerLayers.depth_under(injection, self.backbone, max(e.length for e in examples))
        if layer == 0:
            return None
        lead = common_lead(examples) if self.backbone.can_pack else ()
        memory = self.training.cache_gb * 2**30
        return LowerLayers(
            self.backbone, layer, injection.positions, lead, memory, self.report, self.budget
        )

    def keep(self, path: Path, run: str) -> None:
        """Save checkpoints to ``path`` from now on."""
        self.path, self.progress.run = path, run

    def restore(self) -> str:
        """Go on from the checkpoint, if there is one."""
        assert self.path is not None
        found = checkpoint.read(self.path, self.progress.run, self.trainable, self.optimizer)
        if found is None:
            return "nothing to resume: no checkpoint; starting anew"
        self.progress, self.best = found
        if self.progress.step == 0:
            self.progress.best_score = None  # the log begins anew, with the first evaluation
        return f"resuming at step {self.progress.step} of {self.steps}"

    def forget(self) -> bool:
        """Remove the checkpoint, and tell whether there was one."""
        return self.path is not None and self.world.first and checkpoint.remove(self.path)

    def meet(self, run: str) -> None:
        """Make sure that all processes are in the same place of the same run.

        Raises UserError where one of them has read other rows, or not found the checkpoint.
        """
        if not self.world.same(f"{run}/{self.progress.step}"):
            raise UserError(
                "the processes of this run differ in their rows, model, settings or checkpoint; "
                "give all of them the same files, and an --out that all of them see"
            )
        self.world.spread(self.trainable)

    def save(self) -> None:
        """Write a checkpoint."""
        if self.path is not None and self.world.first:
            began = time.monotonic()
            checkpoint.write(self.path, self.progress, self.trainable, self.optimizer, self.best)
            self.saved = time.monotonic()
            self.saving = self.saved - began

    def go(self, report: Reporter) -> None:
        """Take all steps that are left."""
        patience = self.training.patience
        if self.training.checkpointing:
            self.backbone.checkpointing(True)
        elif self._compiles():
            self.backbone.compiling(True)
        try:
            with interruptible() as stopped:
                if self.progress.best_score is None:
                    self._evaluate(report)
                while self.progress.step < self.steps:
                    if patience is not None and self.progress.worse >= patience:
                        break
                    self._step(report)
                    if self.progress.step % self.per_epoch == 0:
                        self._evaluate(report)
                    elif time.monotonic() - self.saved > SAVE_EVERY * max(1.0, self.saving):
                        self.save()
                    if self.world.any(stopped.is_set()):
                        self.save()
                        self.world.wait()  # a launcher stops all when one has left
                        raise Interrupted(f"stopped at step {self.progress.step} of {self.steps}")
        finally:
            self.backbone.checkpointing(False)
            self.backbone.compiling(False)
            if self.trunk is not None:
                self.trunk.close()

    def _compiles(self) -> bool:
        """Whether to compile: on demand, or where it can be done and the run is long."""
        if self.training.compile == "off":
            return False
        if self.training.compile == "auto" and self.steps - self.progress.step < WORTH_COMPILING:
            return False
        reason = self.backbone.with_changes(self.trainable.outline).compilable
        if self.training.compile == "on" and reason is not None:
            raise UserError(f"--compile on: {reason}; leave it out")
        return reason is None

    def _batch(self) -> Sequence[int]:
        """Return the rows of the next step; an epoch's order depends on the seed and its number."""
        epoch, place = divmod(self.progress.step, self.per_epoch)
        tasks = tuple(row.task for row in self.rows)
        order = _order(tasks, self.counts, self.training.seed, epoch)
        size = self.training.batch_size
        return order[place * size : (place + 1) * size]

    def _step(self, report: Reporter) -> None:
        chosen = self._batch()
        weight = sum(self.bound.weight(self.items[i]) for i in chosen)
        places = self.world.share([self.items[i].example.length for i in chosen])
        items = [self.items[chosen[place]] for place in places]
        seen: list[tuple[list[int], Tensor]] = []

        def loss(group: list[int], logits: Tensor) -> Tensor:
            each = self.bound.losses(logits, [items[i] for i in group])
            seen.append((group, each.detach()))
            return each.sum() / weight

        factor = self.pace(self.progress.step)
        rate = self.rate * factor
        for settings in self.optimizer.param_groups:
            settings["lr"] = settings["own"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        part = 0.0
        if items:
            examples = [item.example for item in items]
            rows = [chosen[place] for place in places]
            chance = torch.Generator().manual_seed(self._seed())
            part = differentiate(
                self.backbone,
                lambda: self._injection(rows, chance),
                examples,
                self.lead,
                self.longest,
                self.budget,
                loss,
                tokens=self.bound.tokens,
                given=None if self.trunk is None else self.trunk.given(examples),
                mix=Mix.draw(self.training.mixup, chance) if self.training.mixup else None,
            )
        self.world.reduce(self.trained)
        if self.anchor is not None:
            self.anchor.pull()
        (total,) = self.world.total(part)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.training.clip)
        values = {"loss": total, "rate": rate, "norm": float(norm), "rows": len(chosen)}
        if not math.isfinite(total + values["norm"]):
            pairs = [pair for group, each in seen for pair in zip(group, each, strict=True)]
            own = min((places[i] for i, value in pairs if not value.isfinite()), default=None)
            first = self.world.least(own)
            where = "" if first is None else self.rows[chosen[first]].where
            self._stop(f"loss of {where}" if where else "gradient", ahead=1)
        self.optimizer.step()
        self.progress.step += 1
        report.step(self.progress.step, values)

    def _injection(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return what the rows of a step are run under."""
        made = self.trainable.training_on(rows, chance)
        return dropped(made, self.training.dropout, chance) if self.training.dropout else made

    def _seed(self) -> int:
        """Return the seed of a step's random numbers, the same in all processes and resumed."""
        return random.Random(f"{self.training.seed}/step/{self.progress.step}").getrandbits(63)

    def _stop(self, what: str, ahead: int = 0) -> NoReturn:
        """Stop at a number that is not finite; the checkpoint stays as it was last written."""
        done = self.progress.step
        cure = f"lower --lr (now {self.rate:g})" if done else "try --dtype float32"
        there = self.path is not None and self.path.exists()
        kept = f"; the last good state is kept in {self.path}" if there else ""
        raise NotFiniteError(f"the {what} is not finite at step {done + ahead}; {cure}{kept}")

    def _evaluate(self, report: Reporter) -> None:
        """Score the dev rows: the mean of the tasks' own scores, each counting alike."""
        tasks = sorted({row.task for row in self.held})
        sums: list[tuple[float, ...]] = [()] * len(tasks)
        broken: int | None = None
        mine = self.world.share([item.example.length for item in self.dev])
        for place, task in enumerate(tasks):
            for group, logits in self._scored([i for i in mine if self.held[i].task == task]):
                if bool(logits.isnan().any()):
                    broken = group[0]
                    break
                found = self.bound.dev_counts(logits, [self.dev[i] for i in group])
                sums[place] = tuple(map(sum, zip_longest(sums[place], found, fillvalue=0.0)))
        broken = self.world.least(broken)
        if broken is not None:
            self._stop(f"score of {self.held[broken].where}")
        own = [
            self.bound.dev_score(self.world.summed(each), task)
            for each, task in zip(sums, tasks, strict=True)
        ]
        if len(tasks) > 1:
            for task, score in zip(tasks, own, strict=True):
                report.score(self.progress.step, f"{self.names[task]} {self.bound.metric}", score)
        score = sum(own) / len(own)
        report.score(self.progress.step, self.bound.metric, score)
        best = self.progress.best_score
        better = best is None or score > best
        self.progress.worse = 0 if better else self.progress.worse + 1
        self.progress.halved += not better and self.training.schedule == "plateau"
        self._keep_best(score, own)
        self.save()

    def _keep_best(self, score: float, own: Sequence[float]) -> None:
        """Keep the parameters if they are the best, or those of each task that are its own best."""
        progress, task_of = self.progress, self.trainable.task_of
        best, before = progress.best_score, progress.own_scores or own
        # Of equals the one that was trained for longer.
        better = [best is None or (n >= o) for n, o in zip(own, before, strict=True)]
        if not task_of:
            better = [best is None or score >= best] * len(own)
        for name, tensor in self.trainable.state_dict().items():
            owner = next((task for start, task in task_of.items() if name.startswith(start)), 0)
            if better[owner]:
                self.best[name] = tensor.detach().clone()
        pairs = zip(own, before, better, strict=True)
        progress.own_scores = [new if kept else old for new, old, kept in pairs]
        progress.best_score = score if best is None else max(score, best)

    def _scored(self, mine: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield dev rows and the scores at their targets."""
        size = len(mine) if self.trunk is None else STATES_AT_ONCE
        for start in range(0, len(mine), max(1, size)):
            part = mine[start : start + size]
            examples = [self.dev[i].example for i in part]
            with torch.no_grad():
                injection = self.trainable.judged_on(part)
            found = infer(
                self.backbone,
                injection,
                examples,
                self.budget,
                tokens=self.bound.tokens,
                given=None if self.trunk is None else self.trunk.given(examples),
            )
            for group, logits in found:
                yield [part[i] for i in group], logits


@lru_cache(maxsize=1)
def _order(
    tasks: tuple[int, ...], counts: tuple[int, ...], seed: int, epoch: int
) -> tuple[int, ...]:
    """Return the order of an epoch's rows, found once for all of its steps."""
    return epoch_order(tasks, dict(enumerate(counts)), seed, epoch)
