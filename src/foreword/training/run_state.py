"""The state of a run: how far it is, its best parameters so far, and its checkpoint."""

from __future__ import annotations

import glob
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from foreword.data.epochs import epoch_order
from foreword.errors import UserError
from foreword.files import check_place_of_tensors, file_to_write
from foreword.methods.base import Trainable
from foreword.training import checkpoint
from foreword.training.examples import Examples
from foreword.training.log import log_path
from foreword.training.regularise import in_pairs
from foreword.training.settings import BATCH, Training
from foreword.training.world import World


class Order:
    """Which rows each step takes: a function of the seed and the step alone."""

    def __init__(self, examples: Examples, training: Training) -> None:
        self.tasks = tuple(row.task for row in examples.train_rows)
        self.counts = dict(enumerate(examples.counts.values()))
        self.size, self.seed = training.batch_size or BATCH, training.seed
        self.per_epoch = -(-sum(self.counts.values()) // self.size)
        self.labels = [item.gold for item in examples.train] if training.contrastive else None
        self._epoch = -1  # the epoch whose order is at hand
        self._rows: tuple[int, ...] = ()

    def batch(self, step: int) -> Sequence[int]:
        """Return the training rows, by number, of a step, counted from 0."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._rows = epoch_order(self.tasks, self.counts, self.seed, epoch)
            if self.labels is not None:
                self._rows = in_pairs(self._rows, self.labels)
        return self._rows[place * self.size : (place + 1) * self.size]

    def step_seed(self, step: int) -> int:
        """Return the seed of a step's random numbers, the same in all processes and resumed."""
        return random.Random(f"{self.seed}/step/{step}").getrandbits(63)


class RunState:
    """All that changes in a run, and the checkpoint from which it is restored.

    Without ``keep_in`` nothing is written.
    """

    def __init__(
        self, trainable: Trainable, optimizer: torch.optim.Optimizer, world: World
    ) -> None:
        self.trainable, self.optimizer, self.world = trainable, optimizer, world
        self.progress = checkpoint.Progress(run="")
        self.best: dict[str, Tensor] = {}
        self.path: Path | None = None
        self.saved, self.saving = time.monotonic(), 0.0

    def keep_in(self, path: Path, run: str) -> None:
        """Save checkpoints to ``path`` from now on; ``run`` hashes what the run is of."""
        self.path, self.progress.run = path, run

    def restore(self, steps: int) -> str:
        """Continue from the checkpoint, if there is one; return a line that says so.

        Raises UserError for a checkpoint of another run, or a damaged one.
        """
        assert self.path is not None
        found = checkpoint.read(self.path, self.progress.run, self.trainable, self.optimizer)
        if found is None:
            return "nothing to resume: no checkpoint; starting anew"
        self.progress, self.best = found
        if self.progress.step == 0:
            self.progress.best_score = None  # the log begins anew, with the first dev score
        return f"resuming at step {self.progress.step} of {steps}"

    def forget(self) -> bool:
        """Remove the checkpoint, and tell whether there was one."""
        return self.path is not None and self.world.first and checkpoint.remove(self.path)

    def agree(self, run: str) -> None:
        """Make sure that all processes are at the same step of the same run.

        Raises UserError where one of them has read other rows, or not found the checkpoint.
        """
        if not self.world.same(f"{run}/{self.progress.step}"):
            raise UserError(
                "the processes of this run differ in their rows, model, settings or checkpoint; "
                "give all of them the same files, and an `out` that all of them see"
            )
        self.world.spread(self.trainable)

    def save(self) -> None:
        """Write a checkpoint."""
        if self.path is not None and self.world.first:
            began = time.monotonic()
            checkpoint.write(self.path, self.progress, self.trainable, self.optimizer, self.best)
            self.saved = time.monotonic()
            self.saving = self.saved - began

    def is_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is older than this, or more where writing one takes long."""
        return time.monotonic() - self.saved > seconds * max(1.0, self.saving)

    def hear(
        self, scores: Sequence[float], score: float, plateau: bool, last: bool = False
    ) -> None:
        """Take in the tasks' dev scores and ``score``, that of all: keep the best parameters.

        Counts the evaluations without a better score; with ``plateau`` each of them halves the
        learning rate. With ``last`` the last parameters are kept, whatever they score.
        """
        progress = self.progress
        better = progress.best_score is None or score > progress.best_score
        progress.worse = 0 if better else progress.worse + 1
        progress.halved += plateau and not better
        self._keep_best(score, scores, last)
        self.save()

    def _keep_best(self, score: float, scores: Sequence[float], last: bool) -> None:
        """Keep the parameters if they are the best, or those of each task at its own best."""
        progress = self.progress
        best, before = progress.best_score, progress.own_scores or scores
        # On a tie, keep the later one.
        better = [best is None or new >= old for new, old in zip(scores, before, strict=True)]
        if not self.trainable.task_of:
            better = [last or best is None or score >= best] * len(scores)
        for name, tensor in self.trainable.state_dict().items():
            if better[self.trainable.owner(name) or 0]:
                self.best[name] = tensor.detach().clone()
        triples = zip(scores, before, better, strict=True)
        progress.own_scores = [new if kept else old for new, old, kept in triples]
        progress.best_score = score if best is None else max(score, best)


def check_out(out: Path, trainable: Trainable) -> None:
    """Raise UserError if ``out`` could not be written after the run: a device, a full disk ...

    Removes temporary files that a killed run of the same prompt has left.
    """
    files = [file_to_write(path) for path in (out, checkpoint.path_for(out), log_path(out))]
    try:
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            for left in file.parent.glob(f".{glob.escape(file.name)}.????????"):
                left.unlink(missing_ok=True)
            probe = file.with_name(f".{file.name}.probe")
            try:
                probe.write_bytes(b"x")
            finally:
                probe.unlink(missing_ok=True)
        free = min(shutil.disk_usage(file.parent).free for file in files)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); choose another `out`"
        ) from None
    # A checkpoint holds parameters, the best ones and two moments; two of them while it is written.
    need = 9 * 4 * sum(p.numel() for p in trainable.parameters()) + 2**20
    if free < need:
        raise UserError(
            f"{out.parent}: {free / 2**20:.1f} MiB are free, and the prompt with its checkpoints "
            f"takes up to {need / 2**20:.1f} MiB; make room or choose another `out`"
        )
    check_place_of_tensors(out)
