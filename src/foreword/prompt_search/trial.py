"""A trial: a prompt tuned with the settings that the study suggests, and its dev score."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.config.values import plain
from foreword.data.row import Row
from foreword.data.sample import stratified
from foreword.display.trials import REPEATED
from foreword.errors import UserError
from foreword.evaluation.request_time import rows_to_time, time_in_turn
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.judged import Judged, TooLong
from foreword.prompt_search.parts import Parts
from foreword.prompt_search.space import EPOCHS, METHOD, Space
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Task
from foreword.training.interrupt import Enough, Interrupted
from foreword.training.settings import Training
from foreword.training.step import NotFiniteError
from foreword.training.tune import tune_prompt

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

SETTINGS, SECONDS, REASON, METRIC = "settings", "seconds", "reason", "metric"
KILOBYTES, MILLISECONDS = "kilobytes", "milliseconds"
"""Attributes of a trial in the study."""

ROWS = "rows"
"""The attribute of a study that says on how many rows its trials are tuned, where not on all."""

TIME_UP = "the time was up"

LEAST_ROWS = 16
"""Rows on which a trial is tuned at the least."""

FIRST_SHARE = 0.5
"""The share of the time that the first trial takes, where the rows are too many for it."""


@dataclass(frozen=True)
class Tried:
    """A trial that has ended, or runs elsewhere.

    ``state`` is complete, pruned, failed or running; ``reason`` says why it was pruned or failed.
    ``score`` is the dev score, of a pruned trial the last one that it reached, None without any.
    ``ended`` are the seconds from the beginning of the study. ``kilobytes`` are those of the
    prompt's numbers, ``milliseconds`` the median of a request.
    """

    number: int
    method: str
    settings: Mapping[str, Any]
    state: str
    score: float | None
    seconds: float | None
    reason: str | None
    ended: float | None = None
    kilobytes: float | None = None
    milliseconds: float | None = None

    @staticmethod
    def of(trial: FrozenTrial, began: datetime | None = None) -> Tried:
        """Return a trial as the study keeps it, which ``began`` then."""
        about = dict(trial.user_attrs)
        settings = dict(about.get(SETTINGS, {}))
        reached = trial.intermediate_values
        score = trial.value if trial.value is not None else None
        if score is None and reached:
            score = reached[max(reached)]
        state, end = trial.state.name.lower(), trial.datetime_complete
        return Tried(
            number=trial.number,
            method=settings.pop("method", ""),
            settings=settings,
            state="failed" if state == "fail" else state,
            score=score,
            seconds=about.get(SECONDS),
            reason=about.get(REASON) or ("its process ended early" if state == "fail" else None),
            ended=None if began is None or end is None else (end - began).total_seconds(),
            kilobytes=about.get(KILOBYTES),
            milliseconds=about.get(MILLISECONDS),
        )


def tried(study: Study) -> list[Tried]:
    """Return the trials of a study that have begun."""
    begun = [each for each in study.trials if each.state.name != "WAITING"]
    began = min((each.datetime_start for each in begun if each.datetime_start), default=None)
    return [Tried.of(each, began) for each in begun]


class Trials:
    """Runs trials on a backbone, and keeps the prompt of the best one so far.

    ``kept`` is the number of that trial and its prompt. ``better`` is called when there is a new
    one, ``passed`` at every step. The best settings are tuned once more at the end, which takes
    ``again`` times as long as their trial: as much of the time is left for that.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        space: Space,
        parts: Parts,
        training: Training,
        deadline: float,
        better: Callable[[int, Prompt], None],
        passed: Callable[[], None],
        again: float = 0.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.backbone, self.task, self.space, self.parts = backbone, task, space, parts
        self.training, self.deadline = training, deadline
        self.better, self.passed, self.again, self.say = better, passed, again, say
        self.folds = list(parts.folds)
        self.kept: tuple[int, Prompt] | None = None
        self.paces: dict[str, float] = {}
        self.filled: dict[tuple[str, int], Task] = {}

    def run(self, trial: Trial) -> float:
        """Tune with the settings of a trial and return its dev score.

        Raises TrialPruned for one that falls behind, diverges or has no time left, and UserError
        for settings that cannot be.
        """
        from optuna import TrialPruned

        settings = self.space.suggest(trial)
        trial.set_user_attr(SETTINGS, settings)
        if (same := _earlier(trial.study, trial.number, settings)) is not None:
            return self._again(trial, same)
        began = time.monotonic()
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
            trial.set_user_attr(REASON, "the search was stopped")
            raise
        finally:
            trial.set_user_attr(SECONDS, round(time.monotonic() - began, 2))
        took = time.monotonic() - began
        if REASON not in trial.user_attrs:
            pace, name = took / settings[EPOCHS], settings[METHOD]
            self.paces[name] = min(pace, self.paces.get(name, pace))
            self._measure(trial, first)
        score, best = mean(scores), best_of(trial.study)
        if best is None or best.value is None or score > best.value:
            self.kept = (trial.number, first)
            self.better(trial.number, first)
        return score

    def _measure(self, trial: Trial, prompt: Prompt) -> None:
        """Keep what a prompt takes: of memory, and of time."""
        held = sum(t.numel() * t.element_size() for _, t in prompt.injection.tensors())
        trial.set_user_attr(KILOBYTES, round(held / 1000, 1))
        rows = rows_to_time(prompt.bound, self.parts.folds[0][1])
        asked = rows[: max(1, len(rows) // 3)]  # one, where answers are texts
        call = [lambda row: prompt.bound.predict([row], prompt.injection)]
        (milliseconds,) = time_in_turn(call, asked, lambda rows: None)
        trial.set_user_attr(MILLISECONDS, round(milliseconds, 1))

    def until(self) -> float:
        """Return when a trial that begins now must end."""
        now = time.monotonic()
        return now + (self.deadline - now) / (1 + self.again)

    def seconds(self, method: str | None, epochs: int) -> float:
        """Return about how long a trial takes, and tuning its settings again at the end.

        A method that was not run, and None, is taken for the fastest; it is 0 before any.
        """
        pace = self.paces.get(method or "", min(self.paces.values(), default=0.0))
        return pace * epochs * (1 + self.again)

    def tune(
        self,
        settings: Mapping[str, Any],
        train: Sequence[Row],
        dev: Sequence[Row] | None,
        report: Reporter = SILENT,
    ) -> Prompt:
        """Tune a prompt with the settings of a trial."""
        task, method, training = self.space.configured(settings, self.task, self.training)
        task = self._filled(task, train)
        return tune_prompt(
            self.backbone, task, method, train, dev, training=training, report=report
        )

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
        return any(train is each for each, _ in self.folds)

    def prompt_of(self, trial: FrozenTrial) -> Prompt:
        """Return the prompt of a trial; one of another process is tuned again, to the same."""
        if self.kept is not None and self.kept[0] == trial.number:
            return self.kept[1]
        return self.tune(trial.user_attrs[SETTINGS], *self.folds[0])

    def _fitting(self, trial: Trial, settings: Mapping[str, Any]) -> tuple[Prompt, list[float]]:
        """Tune on each fold; on fewer rows from here on, if the time is far too short for all."""
        rows = trial.study.user_attrs.get(ROWS)
        if rows is not None:
            self._use(rows)
        try:
            return self._folds(trial, settings)
        except TooLong as error:
            every = len(self.folds[0][0])
            self._use(max(LEAST_ROWS, int(FIRST_SHARE * error.share * every)))
            rows = len(self.folds[0][0])
            trial.study.set_user_attr(ROWS, rows)
            self.say(f"the time is too short for {every} rows: trials are tuned on {rows} of them")
            return self._folds(trial, settings)

    def _use(self, most: int) -> None:
        """Tune on so many rows of a fold, of all classes in proportion."""
        if most >= len(self.folds[0][0]):
            return
        field, seed = self.task.label_field or "", self.training.seed
        self.folds = []
        for train, dev in self.parts.folds:
            chosen = stratified([row.fields.get(field) for row in train], most, seed)
            self.folds.append(([train[n] for n in chosen], dev))

    def _folds(self, trial: Trial, settings: Mapping[str, Any]) -> tuple[Prompt, list[float]]:
        """Tune on each fold; return the first one's prompt, and the dev scores of all."""
        from optuna import TrialPruned

        several = len(self.folds) > 1
        scores: list[float] = []
        first: Prompt | None = None

        def hear(step: int, value: float) -> None:
            trial.report(value, step)
            if trial.should_prune():
                trial.set_user_attr(REASON, "it fell behind")
                raise TrialPruned

        def ignore(step: int, value: float) -> None:
            """Folds are compared whole."""

        until = self.until()
        probe = not self.paces and len(self.folds[0][0]) == len(self.parts.folds[0][0])
        for number, (train, dev) in enumerate(self.folds):
            report = Judged(ignore if several else hear, until, self.passed, probe=probe)
            prompt = self.tune(settings, train, dev, report)
            if report.over:
                trial.set_user_attr(REASON, TIME_UP)
                if several and best_of(trial.study) is not None:
                    raise TrialPruned
                if first is not None:
                    break
            metric, value = dev_score(prompt)
            scores.append(value)
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


def _earlier(study: Study, number: int, settings: Mapping[str, Any]) -> FrozenTrial | None:
    """Return the trial with these settings that has ended by itself, None without one."""
    for each in study.get_trials(deepcopy=False):
        ended = each.state.name in ("COMPLETE", "PRUNED") and each.number != number
        stopped = each.user_attrs.get(REASON) == TIME_UP
        if ended and not stopped and each.user_attrs.get(SETTINGS) == settings:
            return each
    return None


def is_repeated(trial: FrozenTrial) -> bool:
    """Whether a trial has only taken over the outcome of an earlier one."""
    return str(trial.user_attrs.get(REASON, "")).startswith(REPEATED)


def best_of(study: Study) -> FrozenTrial | None:
    """Return the first of the trials with the best score, None where none is complete."""
    ended = [each for each in study.get_trials(deepcopy=False) if each.state.name == "COMPLETE"]
    return max(ended, key=lambda each: (each.value or 0.0, -each.number), default=None)
