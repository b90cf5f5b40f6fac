"""A trial: a prompt tuned with the settings that the study suggests, and its dev score."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.config.values import plain
from foreword.data.row import Row
from foreword.display.trials import REPEATED
from foreword.errors import UserError
from foreword.evaluation.request_time import rows_to_time, time_in_turn
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.chance import row_values
from foreword.prompt_search.judged import Judged, TooLong
from foreword.prompt_search.pace import Pace
from foreword.prompt_search.parts import Parts
from foreword.prompt_search.space import EPOCHS, METHOD, Space
from foreword.prompt_search.tried import (
    KILOBYTES,
    LOSSES,
    METRIC,
    MILLISECONDS,
    REASON,
    SECONDS,
    SETTINGS,
    STOPPED,
    TIME_UP,
    USUAL,
    VALUES,
    best_of,
    choose,
    earlier,
)
from foreword.prompt_search.unfinished import Unfinished
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Task
from foreword.training.interrupt import Enough, Interrupted
from foreword.training.settings import Training
from foreword.training.started import started_from
from foreword.training.step import NotFiniteError
from foreword.training.tune import tune_prompt

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

ROWS = "rows"
"""The attribute of a study that says on how many rows its trials are tuned, where not on all."""

LEAST_ROWS = 16
"""Rows on which a trial is tuned at the least."""

PACE = "pace"
"""The attribute of a trial that says what it took: its seconds, those of an epoch, and of that the
scoring."""

FIRST_SHARE = 0.5
"""The share of the time that the first trial takes, where the rows are too many for it."""


class Trials:
    """Runs trials on a backbone, and keeps the prompt of the best one so far.

    ``kept`` is the number of that trial and its prompt. ``better`` is called when there is a new
    one, ``passed`` at every step. ``used`` are the parts that trials go by, which have fewer rows
    than ``parts`` where the time is too short. An ``unfinished`` trial goes on where it was
    stopped. An ``epoch`` of the last trial took so many seconds on all folds, with its ``scoring``.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        space: Space,
        parts: Parts,
        training: Training,
        pace: Pace,
        better: Callable[[int, Prompt], None],
        passed: Callable[[], None],
        say: Callable[[str], None] = lambda line: None,
        unfinished: Unfinished | None = None,
    ) -> None:
        self.backbone, self.task, self.space, self.parts = backbone, task, space, parts
        self.training, self.pace, self.clock = training, pace, pace.clock
        self.better, self.passed, self.say = better, passed, say
        self.unfinished = unfinished or Unfinished()
        self.resumed, self.epoch, self.scoring = False, 0.0, 0.0
        self.used = parts
        self.kept: tuple[int, Prompt] | None = None
        self.filled: dict[tuple[str, int], Task] = {}

    def go_on(self, study: Study, *, paced: bool) -> None:
        """Go by the trials of a study: their rows, the best one and, where they are ``paced`` as
        ours will be, what they took."""
        self._use(study.user_attrs.get(ROWS, self.used.tuned))
        for each in study.get_trials(deepcopy=False) if paced else ():
            if (took := each.user_attrs.get(PACE)) is not None:
                settings, (seconds, *an_epoch) = each.user_attrs[SETTINGS], took
                self.pace.note(settings[METHOD], seconds, settings[EPOCHS], *an_epoch)
        if (best := best_of(study)) is not None:
            self.pace.best = best.user_attrs[SETTINGS][METHOD]

    def run(self, trial: Trial) -> float:
        """Tune with the settings of a trial and return its dev score.

        Raises TrialPruned for one that falls behind, diverges or has no time left, and UserError
        for settings that cannot be.
        """
        from optuna import TrialPruned

        settings = self.space.suggest(trial)
        trial.set_user_attr(SETTINGS, settings)
        if (same := earlier(trial.study, trial.number, settings)) is not None:
            return self._again(trial, same)
        began, self.resumed, self.epoch, self.scoring = self.clock(), False, 0.0, 0.0
        ended = True
        try:
            first, scores = self._fitting(trial, settings)
        except NotFiniteError:
            trial.set_user_attr(REASON, "its loss was no longer finite")
            raise TrialPruned from None
        except Enough:
            trial.set_user_attr(REASON, TIME_UP)
            raise TrialPruned from None
        except (UserError, MemoryError, torch.OutOfMemoryError) as error:
            short = isinstance(error, UserError)
            reason = " ".join(str(error).split()) if short else "the memory was not enough"
            trial.set_user_attr(REASON, reason)
            raise
        except (Interrupted, KeyboardInterrupt):
            trial.set_user_attr(REASON, STOPPED)
            ended = False
            raise
        finally:
            if ended:
                self.unfinished.forget()
            trial.set_user_attr(SECONDS, round(self.clock() - began, 2))
        took = self.clock() - began
        if REASON not in trial.user_attrs:
            if not self.resumed:  # which took less time than a whole one
                self.pace.note(settings[METHOD], took, settings[EPOCHS], self.epoch, self.scoring)
                trial.set_user_attr(PACE, (took, self.epoch, self.scoring))
            self._measure(trial, first)
        score = mean(scores)
        if self._is_best(trial, score):
            self.kept, self.pace.best = (trial.number, first), settings[METHOD]
            self.better(trial.number, first)
        return score

    def _is_best(self, trial: Trial, score: float) -> bool:
        """Whether a trial that ends with a score is the best one then."""
        every = trial.study.get_trials()
        every[trial.number].value = score
        ended = [t for t in every if t.state.name == "COMPLETE" or t.number == trial.number]
        best = choose(ended)
        return best is not None and best.number == trial.number

    def _measure(self, trial: Trial, prompt: Prompt) -> None:
        """Keep what a prompt takes: of memory, and of time."""
        held = sum(t.numel() * t.element_size() for _, t in prompt.injection.tensors())
        trial.set_user_attr(KILOBYTES, round(held / 1000, 1))
        rows = rows_to_time(prompt.bound, self.parts.folds[0][1])
        asked = rows[: max(1, len(rows) // 3)]  # one, where answers are texts
        call = [lambda row: prompt.bound.predict([row], prompt.injection)]
        (milliseconds,) = time_in_turn(call, asked, lambda rows: None)
        trial.set_user_attr(MILLISECONDS, round(milliseconds, 1))

    def last_settings(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the settings of a trial, in the longest run that there is still time for."""
        settings = dict(trial.user_attrs[SETTINGS])
        return {**settings, EPOCHS: self.pace.longest(settings[EPOCHS])}

    def tune(
        self,
        settings: Mapping[str, Any],
        train: Sequence[Row],
        dev: Sequence[Row] | None,
        report: Reporter = SILENT,
        place: Path | None = None,
        start: Prompt | None = None,
    ) -> Prompt:
        """Tune a prompt with the settings of a trial.

        It goes on where it was stopped, as ``place`` has it, or begins with what the prompt
        ``start`` has learned.
        """
        if place is not None and place.exists():
            return Prompt.load(place, self.backbone)
        task, method, training = self.space.configured(settings, self.task, self.training)
        task = self._filled(task, train)
        with TemporaryDirectory() as work:
            if start is not None:
                copy = Path(work) / "start.safetensors"
                method = started_from(start, method, self.backbone, copy) or method
            tuned = tune_prompt(
                self.backbone,
                task,
                method,
                train,
                dev,
                training=training,
                out=place,
                resume=place is not None,
                report=report,
            )
        if start is None:
            return tuned
        about = {**start.method, **{each: tuned.method[each] for each in ("training", "trained")}}
        return replace(tuned, method=about)

    def _filled(self, task: Task, train: Sequence[Row]) -> Task:
        """Return the task with its label words, which are chosen once for each fold."""
        if getattr(task, "verbalizer", "manual") == "manual" or not self._is_fold(train):
            return task
        key = (json.dumps(plain(task), sort_keys=True, default=str), id(train))
        if key not in self.filled:
            whole = task.complete(train, self.backbone)
            self.filled[key] = whole.fill_from_rows(self.backbone, train, self.training.seed)
        return self.filled[key]

    def _is_fold(self, train: Sequence[Row]) -> bool:
        return any(train is each for each, _ in self.used.folds)

    def prompt_of(self, trial: FrozenTrial) -> Prompt:
        """Return the prompt of a trial; one of another process is tuned again, to the same."""
        if self.kept is not None and self.kept[0] == trial.number:
            return self.kept[1]
        return self.tune(trial.user_attrs[SETTINGS], *self.used.folds[0])

    def _fitting(self, trial: Trial, settings: Mapping[str, Any]) -> tuple[Prompt, list[float]]:
        """Tune on each fold; on fewer rows from here on, if the time is far too short for all."""
        self._use(trial.study.user_attrs.get(ROWS, self.used.tuned))
        try:
            return self._folds(trial, settings)
        except TooLong as error:
            self._use(max(LEAST_ROWS, int(FIRST_SHARE * error.share * self.parts.tuned)))
            trial.study.set_user_attr(ROWS, self.used.tuned)
            self.say(
                f"the time is too short for {self.parts.tuned} rows: trials are tuned on "
                f"{self.used.tuned} of them, and judged by {self.used.judged} dev rows"
            )
            return self._folds(trial, settings)

    def _use(self, most: int) -> None:
        """Tune on so many rows of a fold."""
        if most < self.used.tuned:
            self.pace.again *= self.used.tuned / most
            self.used = self.parts.fewer(most, self.training.seed, self.task.class_field)

    @property
    def part(self) -> float:
        """How many of a fold's rows trials are tuned on, from 0 to 1."""
        return self.used.tuned / self.parts.tuned

    def _folds(self, trial: Trial, settings: Mapping[str, Any]) -> tuple[Prompt, list[float]]:
        """Tune on each fold; return the first one's prompt, and the dev scores of all."""
        from optuna import TrialPruned

        folds = self.used.folds
        several = len(folds) > 1
        scores, values, losses = list[float](), list[float](), list[float]()
        first: Prompt | None = None

        def hear(step: int, value: float) -> None:
            trial.report(value, step)
            if trial.should_prune():
                trial.set_user_attr(REASON, "it fell behind")
                raise TrialPruned

        def ignore(step: int, value: float) -> None:
            """Folds are compared whole."""

        def a_fold(needed: float) -> float:
            if self.pace.leaves_no_last(len(folds) * needed):
                self.pace.again = 0.0
                self.say("the time is too short to tune the best settings again on all rows")
            return self.pace.first() / len(folds)

        until = self.pace.until()
        fresh = self.part == 1 and best_of(trial.study) is None  # nothing is judged by these rows
        for number, (train, dev) in enumerate(folds):
            report = Judged(
                ignore if several else hear,
                until,
                self.passed,
                most=a_fold if fresh and number == 0 else None,
                clock=self.clock,
            )
            place = self.unfinished.place(settings, train)
            self.resumed = self.resumed or (place is not None and place.exists())
            prompt = self.tune(settings, train, dev, report, place)
            self.resumed = self.resumed or report.resumed
            self.epoch += report.epoch
            self.scoring += report.scoring
            if report.over:
                trial.set_user_attr(REASON, TIME_UP)
                if several and best_of(trial.study) is not None:
                    raise TrialPruned
                if first is not None:
                    break
            metric, value = dev_score(prompt)
            scores.append(value)
            own, lost = row_values(prompt, dev)
            values, losses = values + own, losses + lost
            if first is None:
                first = prompt
                trial.set_user_attr(METRIC, metric)
            if (
                several and not report.over
            ):  # by the mean so far: all trials have the same folds in the same order
                hear(number + 1, mean(scores))
            if report.over:
                break
        assert first is not None
        trial.set_user_attr(VALUES, values)
        trial.set_user_attr(LOSSES, losses)
        if _alike(trial.params, self.space.usual()):
            trial.set_user_attr(USUAL, True)
        return first, scores

    def _again(self, trial: Trial, same: FrozenTrial) -> float:
        """Give a trial the outcome of an earlier one with the same settings."""
        from optuna import TrialPruned

        trial.set_user_attr(REASON, f"{REPEATED}{same.number}")
        trial.set_user_attr(SECONDS, 0.0)
        for step, value in same.intermediate_values.items():
            trial.report(value, step)
        if same.state.name != "COMPLETE" or same.value is None:
            raise TrialPruned
        return same.value


def dev_score(prompt: Prompt) -> tuple[str, float]:
    """Return the name and the value of a prompt's dev score."""
    name = next(key for key in prompt.scores["dev"] if key != "rows")
    return name, float(prompt.scores["dev"][name])


def _alike(params: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether parameters differ in the number of epochs at most."""
    return {**params, EPOCHS: None} == {**others, EPOCHS: None}
