"""The loop: steps and dev scores in turn, with checkpoints, until the last step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.methods.base import Trainable
from foreword.reporter import Reporter
from foreword.tasks.objective import Objective
from foreword.training.dev_score import dev_scores
from foreword.training.examples import Examples
from foreword.training.interrupt import Enough, Interrupted, Stop, interruptible
from foreword.training.run_state import Order, RunState
from foreword.training.settings import EPOCHS, Training
from foreword.training.step import Learner, NotFiniteError
from foreword.training.world import ALONE, World

SAVE_EVERY = 20.0
"""Seconds between checkpoints within an epoch, more where writing one takes long; there is one
after every evaluation too."""


class Loop:
    """One run of training, before its first step, or at any later one.

    ``step`` takes the next step and ``score`` scores the dev rows; ``go`` does all that is left.
    ``finish`` sets the best parameters; ``scores`` is then the dev score of each task. Without dev
    rows the last parameters are kept, and there is no score; they are kept too where the run is to
    be made once more (``refit``), as it will keep its last ones.
    ``steps`` is how many there are, ``per_epoch`` how many an epoch has, and ``pace`` what the
    learning rates are multiplied by at a step.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        trainable: Trainable,
        examples: Examples,
        training: Training,
        rate: float,
        world: World = ALONE,
    ) -> None:
        self.backbone, self.objective, self.trainable = backbone, objective, trainable
        self.examples, self.training, self.world = examples, training, world
        self.learner = Learner(backbone, objective, trainable, examples, training, rate, world)
        self.state = RunState(trainable, self.learner.optimizer, world)
        self.order = Order(examples, training)
        self.per_epoch = self.order.per_epoch
        self.steps = self.per_epoch * (training.epochs or EPOCHS)
        self.pace: Callable[[int], float] = self._scheduled
        self.scores: Sequence[float] = ()
        self._stop = Stop()
        self._scored: int | None = None

    def _scheduled(self, step: int) -> float:
        """Return what learning rates are multiplied by at a step, after the run's settings."""
        return self.training.factor(step, self.steps, self.state.progress.halved)

    def step(self) -> Mapping[str, float]:
        """Take the next step; return its ``loss``, ``rate``, ``norm`` and ``rows``.

        Raises NotFiniteError; the checkpoint stays as it was last written.
        """
        progress = self.state.progress
        chosen = self.order.batch(progress.step)
        seed = self.order.step_seed(progress.step)
        try:
            values = self.learner.step(chosen, self.pace(progress.step), seed)
        except NotFiniteError as error:
            raise self._not_finite(str(error), progress.step + 1) from None
        progress.step += 1
        return values

    def score(self, report: Reporter) -> None:
        """Score the sample of dev rows, keep the best parameters, and write a checkpoint.

        The dev score of several tasks is the mean of theirs (``Objective.overall``).
        """
        if not self.examples.dev:
            self.state.save()
            return
        scores = self._scores(self.examples, self.examples.sample, report)
        overall = self._tell(scores, self.objective.metric, report)
        self._scored = self.state.progress.step
        plateau, last = self.training.schedule == "plateau", self.training.refit == "on"
        self.state.hear(scores, overall, plateau, last)

    def finish(self, report: Reporter) -> None:
        """Set the best parameters, and score them on all dev rows if they were not.

        Raises Interrupted where the run was stopped meanwhile: it goes on with this scoring.
        """
        if not self.examples.dev:
            return
        self.trainable.load_state_dict(self.state.best)
        scored = len(self.examples.sample) == len(self.examples.dev)
        if scored:
            self.scores = self.state.progress.own_scores
        else:
            once = replace(self.examples, lower=None)  # whose states would be stored for nothing
            self.scores = self._scores(once, range(len(once.dev)), report)
        if self.world.any(self._stop.signal is not None):
            raise self._interrupted()
        if not scored:
            self._tell(self.scores, f"{self.objective.metric} of all rows", report)

    def _scores(
        self, examples: Examples, numbers: Sequence[int], report: Reporter
    ) -> Sequence[float]:
        """Score dev rows, and return the score of each task."""
        try:
            with report.bar("dev rows", len(numbers)) as progress:
                scores = dev_scores(
                    self.backbone,
                    self.objective,
                    self.trainable,
                    examples,
                    numbers,
                    self.world,
                    progress,
                )
        except NotFiniteError as error:
            raise self._not_finite(str(error), self.state.progress.step) from None
        return scores

    def _tell(self, scores: Sequence[float], metric: str, report: Reporter) -> float:
        """Report the score of each task, and that of all, which is returned."""
        step, overall = self.state.progress.step, self.objective.overall(scores)
        if len(scores) > 1:
            for name, score in zip(self.examples.counts, scores, strict=True):
                report.score(step, f"{name} {metric}", score)
        report.score(step, metric, overall)
        return overall

    def go(self, report: Reporter) -> None:
        """Take all steps that are left, and set the best parameters.

        Steps end early where a reporter raises Enough, and there is a state to keep; what was
        learned until then is scored.

        Raises Interrupted after Ctrl-C or SIGTERM, when all is saved.
        """
        progress = self.state.progress
        with ExitStack() as stack:
            stack.callback(self.close)
            if self.examples.plan.recompute:
                self.backbone.checkpointing(True)
            elif self.compiles():
                self.backbone.compiling(True)
            self._stop = stack.enter_context(interruptible())
            try:
                self._steps(report)
            except Enough:
                if progress.best_score is None:
                    raise
                if self._scored != progress.step:
                    self.score(report)  # what was learned since
            try:
                self.finish(report)
            except Enough:
                self.finish(report)  # what was learned is scored, however long that takes

    def _steps(self, report: Reporter) -> None:
        patience, progress = self.training.patience, self.state.progress
        if progress.best_score is None:
            self.score(report)
        while progress.step < self.steps:
            if patience is not None and progress.worse >= patience:
                break
            values = self.step()
            report.step(progress.step, values)
            if progress.step % self.per_epoch == 0:
                self.score(report)
            elif self.state.is_due(SAVE_EVERY):
                self.state.save()
            if self.world.any(self._stop.signal is not None):
                self.state.save()
                raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        """Wait for the other processes, and return what says where the run was stopped."""
        self.world.wait()  # a launcher stops all when one has left
        step = self.state.progress.step
        return Interrupted(f"stopped at step {step} of {self.steps}", self._stop.signal)

    def close(self) -> None:
        """Leave the model as it was, and free the stored states."""
        self.backbone.checkpointing(False)
        self.backbone.compiling(False)
        if self.examples.lower is not None:
            self.examples.lower.close()

    def compiles(self) -> bool:
        """Whether to compile: on demand, or where it can be done and the run is long."""
        # All steps count, not those that are left: a resumed run does what the whole one does.
        if not self.training.may_compile(self.steps):
            return False
        if not self.examples.plan.compiles:
            if self.training.compile == "on":
                raise UserError("`compile=on` does not fit into `memory`; leave one of them out")
            return False
        reason = self.backbone.with_changes(self.trainable.outline).compilable
        if self.training.compile == "on" and reason is not None:
            raise UserError(f"`compile=on`: {reason}; leave it out")
        return reason is None

    def _not_finite(self, what: str, step: int) -> NotFiniteError:
        """Return an error that says what to do about a number that is not finite."""
        started = self.state.progress.step > 0
        cure = f"lower `rate` (now {self.learner.rate:g})" if started else "try `dtype=float32`"
        path = self.state.path
        kept = ""
        if path is not None and path.exists():
            kept = f"; the last good state is kept in {path}"
        return NotFiniteError(f"the {what} is not finite at step {step}; {cure}{kept}")
