"""The search: what it finds, what it keeps, when it ends, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import multiprocessing
import os
import random
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import foreword.prompt_search.budget
import foreword.prompt_search.live
import foreword.prompt_search.search
import foreword.prompt_search.templates
import foreword.prompt_search.trial as of_trial
import foreword.prompt_search.tried
import foreword.prompt_search.wording
import foreword.tasks.classify
from families import backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.data.rows import as_rows
from foreword.data.sample import folds, stratified
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.explanation.judge import Judge
from foreword.injection import NOTHING
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.chance import row_values
from foreword.prompt_search.charts import on_front
from foreword.prompt_search.hard import nats_of, search_hard
from foreword.prompt_search.importance import importances
from foreword.prompt_search.judged import Judged
from foreword.prompt_search.models import Look, look_at
from foreword.prompt_search.outcome import page_path, result_path, study_path
from foreword.prompt_search.pace import Pace
from foreword.prompt_search.parts import FEW, part_rows
from foreword.prompt_search.plan import next_trial
from foreword.prompt_search.search import search
from foreword.prompt_search.searched import Searched
from foreword.prompt_search.space import Choice, Space, choices_of
from foreword.prompt_search.study import open_storage, optuna_quiet
from foreword.prompt_search.templates import find_templates
from foreword.prompt_search.tried import TIME_UP, Tried, choose
from foreword.prompt_search.unfinished import Unfinished
from foreword.reporter import SILENT, Reporter
from foreword.retuning.recorded import recorded_method
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.training.interrupt import Interrupted
from foreword.training.settings import Training
from foreword.training.started import has_start, started_from
from foreword.training.step import NotFiniteError
from foreword.training.tune import tune, tune_prompt
from processes import until
from toys import FAMILIES, TASK, Lines, get, rows

TINY = {"methods": "head", "head_start": "random", "batch_size": 8, "epochs": 2}


def found(**changes: Any) -> Searched:
    """A search among heads that start at random, of which a trial takes a tenth of a second."""
    given = {"task": TASK, "train": rows(40), "dev": rows(20, 100), "trials": 4, **TINY}
    given["report"] = SILENT
    given |= changes
    return search(get(), **{name: value for name, value in given.items() if value is not None})


def test_the_right_setting_is_found_and_the_score_is_that_of_rows_no_trial_saw() -> None:
    made = found(rate=[1e-9, 3e-2])
    assert made.best.settings["rate"] == 3e-2
    assert {each.settings["rate"] for each in made.trials} == {1e-9, 3e-2}
    assert made.best.score == max(each.score or 0.0 for each in made.trials)
    parts = part_rows(rows(40), rows(20, 100), None, 0, "label")
    assert len(parts.held) == 8
    assert not {id(row) for row in parts.held} & {id(row) for row in parts.folds[0][0]}
    again = evaluate(made.prompt, parts.held, report=SILENT)
    assert made.held is not None
    assert made.held.score == again.score
    assert made.luck == made.best.score - again["accuracy"]


def test_the_same_seed_makes_the_same_trials() -> None:
    one, two, other = found(trials=3), found(trials=3), found(trials=3, seed=1)

    def told(made: Searched) -> list[Any]:
        return [(each.settings, each.score, each.state) for each in made.trials]

    assert told(one) == told(two) != told(other)
    assert one.trials[0].settings["rate"] == pytest.approx(1e-3)  # the method's own goes first


def test_repeated_settings_are_not_tuned_again_and_end_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuned = counted(monkeypatch)
    made = found(rate=[1e-9, 3e-2], trials=None, minutes=5)
    assert len(tuned) == 2
    assert len(made.trials) > 20
    tuned.clear()
    assert len(found(rate=1e-2, trials=9).trials) == len(tuned) == 1


def tensors(prompt: Prompt) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in prompt.injection.tensors()}


def test_known_settings_go_first_then_short_runs_of_which_the_best_go_on() -> None:
    made = found(epochs=[2, 1, 4], trials=8)
    length = [each.settings["epochs"] for each in made.trials]
    assert length == [1, 4, 1, 1, 2, 1, 1, 1]  # the usual ones, two more looks, and so on
    usual = {name: v for name, v in made.trials[0].settings.items() if name != "epochs"}
    assert made.trials[1].settings == {**usual, "epochs": 4}
    looks = [each for each in made.trials[:4] if each.settings["epochs"] == 1]
    first = max(looks, key=lambda each: (each.score or 0, -each.number))
    assert made.trials[4].settings == {**first.settings, "epochs": 2}
    default = found(trials=1, epochs=None)
    assert default.about["space"]["shared"]["epochs"] == [1, 2, 4]


def ended(study: Any, params: dict[str, Any], value: float | None, **more: Any) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import create_trial

    kinds = {
        "method": CategoricalDistribution(("head", "soft")),
        "epochs": CategoricalDistribution((2, 1, 4)),
        "head.rate": FloatDistribution(0, 1),
    }
    kinds = {name: kinds[name] for name in params}
    study.add_trial(create_trial(params=params, distributions=kinds, value=value, **more))


@pytest.mark.parametrize("task", [TASK, Generate(max_length=40)])
def test_what_each_row_adds_has_the_dev_score_as_its_mean(task: Any) -> None:
    given = rows(12, 100)
    if isinstance(task, Generate):
        pairs = [
            (row.fields["text"], "it was good" if row.fields["label"] == "good" else "bad")
            for row in given
        ]
        given = as_rows([{"prompt": text, "completion": said} for text, said in pairs])
    method, how = Prefix(length=2, start="vocabulary"), Training(epochs=1, batch_size=8)
    prompt = tune_prompt(get(), task, method, given, given, training=how)
    values, losses = row_values(prompt, given)
    assert len(values) == len(losses) == 12
    assert statistics.mean(values) == pytest.approx(of_trial.dev_score(prompt)[1], rel=1e-4)
    measured = Judge.of(prompt.bound, given, prompt.injection).measure("as it is")
    units = sum(map(prompt.bound.units, Judge.of(prompt.bound, given).items))
    assert sum(losses) / units == pytest.approx(measured.loss, rel=1e-3)


def test_the_usual_settings_stand_unless_others_are_better_beyond_chance() -> None:
    def trial(number: int, right: int, *, usual: bool, epochs: int = 2, flaws: int = 0) -> Any:
        """Of forty rows so many are right; ``flaws`` are wrong that others have right."""
        from optuna.trial import create_trial

        values = [0.0] * flaws + [100.0] * right + [0.0] * (40 - right - flaws)
        told = {"values": values, "settings": {"epochs": epochs}, "usual": usual}
        made = create_trial(value=statistics.mean(values), user_attrs=told)
        made.number = number
        return made

    balanced, best = trial(0, 30, usual=True), trial(1, 30, usual=True, epochs=4)
    assert choose([]) is None
    assert choose([balanced, best]) is best
    assert choose([trial(1, 29, usual=True, epochs=4), balanced]).number == 1  # one row is chance
    assert choose([trial(1, 27, usual=True, epochs=4), balanced]) is balanced
    one_more, lucky = trial(2, 31, usual=False), trial(3, 33, usual=False, flaws=5)
    assert choose([balanced, one_more]) is balanced
    assert choose([balanced, lucky]) is balanced  # eight rows are right and five wrong beside it
    clear, longer = trial(4, 34, usual=False), trial(5, 34, usual=False, epochs=4)
    assert choose([balanced, one_more, clear, lucky]) is clear
    assert choose([balanced, clear, longer]) is longer
    look = trial(6, 20, usual=True, epochs=1)
    assert choose([look, trial(7, 24, usual=False, epochs=1)]).number == 7  # looks with looks
    assert choose([look, trial(7, 24, usual=False, epochs=1), balanced]) is balanced
    assert choose([lucky, one_more]) is lucky  # where nothing is known to be good
    balanced.user_attrs["losses"] = [0.5, 0.7] * 20
    for right, loss, best in ((30, 0.5, True), (30, 0.59, False), (29, 0.5, False)):
        other = trial(8, right, usual=False)
        other.user_attrs["losses"] = [loss, loss + 0.1] * 20
        assert (choose([balanced, other]) is other) is best  # by the loss, unless it scores lower


def test_a_score_that_may_be_chance_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(foreword.prompt_search.tried, "is_higher", lambda first, second: False)
    made = found(trials=6, rate=[1e-9, 3e-2], report=Lines(heard))
    assert made.best.number == 0
    top = max(made.trials, key=lambda each: each.score or 0.0)
    said = [line for line in heard if "which may be chance beside trial 0" in line]
    assert top.settings["rate"] == 3e-2
    assert len(said) == 1


def test_what_comes_next_is_what_the_time_allows() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rate = Choice("rate", low=0.01, high=1.0, usual=0.1)
    space = Space({"head": [rate]}, [Choice("epochs", (2, 1, 4))], {}, rated=True)
    study = optuna.create_study(direction="maximize")

    def coming(left: float, **asked: bool) -> Any:
        return next_trial(study, space, left, lambda _, epochs: 10.0 * epochs, (1, 2, 4), **asked)

    assert coming(0.1) == {"head.rate": 0.1, "epochs": 1}  # how long it takes is not known yet
    ended(study, {"head.rate": 0.1, "epochs": 1}, 80)
    assert coming(120) == {"head.rate": 0.1, "epochs": 4}  # a third of the time
    assert coming(119) == {"epochs": 1}
    assert coming(54) == {"head.rate": 0.1, "epochs": 4}  # now or never
    assert coming(39) == {"epochs": 1}  # and two of the usual epochs after it
    assert coming(34) == {"head.rate": 0.1, "epochs": 2}
    assert coming(54, ends=False) == coming(34, ends=False) == {"epochs": 1}
    assert coming(19) == {"epochs": 1}
    assert coming(9) is None
    for value, score in ((0.2, 70.0), (0.3, 90.0), (0.4, 60.0)):
        ended(study, {"head.rate": value, "epochs": 1}, score)
    assert coming(119) == {"head.rate": 0.3, "epochs": 2}  # the best third of the looks
    assert coming(25) == {"head.rate": 0.3, "epochs": 2}
    assert coming(15) == {"epochs": 1}
    assert coming(119, looks=False) == {"head.rate": 0.3, "epochs": 4}
    assert coming(119, looks=False, ends=False) == {"head.rate": 0.3, "epochs": 2}
    assert coming(15, looks=False) is None


def test_time_is_kept_for_as_long_a_last_run_as_there_can_be() -> None:
    now = 0.0
    pace = Pace((1, 2, 4), 600.0, again=1.5, clock=lambda: now)
    assert (pace.longest(1), pace.left_for_trials()) == (4, 600.0)  # nothing is known yet
    pace.note("prefix", 70.0, 1, 60.0)  # ten of them beside the epoch
    pace.best = "prefix"
    assert (pace.seconds("prefix", 2), pace.seconds("unknown", 1)) == (130.0, 70.0)
    for gone, epochs, left in (
        *((100.0, 4, 130.0), (250.0, 4, -20.0), (550.0, 0, -320.0)),
        *((300.0, 3, -70.0), (365.0, 3, -135.0), (366.0, 2, -136.0)),  # half an epoch may be cut
    ):
        now = gone
        assert (pace.longest(0), pace.left_for_trials(), pace.is_short()) == (
            epochs,
            left,
            left < 0,
        )
    pace.note("prefix", 70.0, 1, 60.0, 20.0)  # is no faster: what was known stays
    assert pace.seconds("prefix", 4, 1.5) == 370.0
    pace.note("soft", 70.0, 1, 60.0, 20.0)  # on half as many rows again it learns for 60, not 40
    assert pace.seconds("soft", 4, 1.5) == 330.0


def test_a_last_run_is_left_out_where_half_of_its_epochs_do_not_fit() -> None:
    for pace, seconds in (
        (Pace((1, 2, 4), 600.0, again=1.25, clock=lambda: 0.0), 320.0),  # 1.5 epochs of 400
        (Pace((2, 4), 600.0, again=1.0, clock=lambda: 0.0), 800.0),
        (Pace((1,), 600.0, again=1.5, clock=lambda: 0.0), 800.0),  # half an epoch of 1200
    ):
        assert [pace.leaves_no_last(each) for each in (seconds, seconds + 1)] == [False, True]
    assert not Pace((1, 4), 600.0, clock=lambda: 0.0).leaves_no_last(1e6)  # there is none


def test_the_first_trial_may_take_what_leaves_the_longest_run_its_time() -> None:
    assert Pace((1, 2, 4), 600.0, again=1.5, clock=lambda: 100.0).first() == 500 / 7
    assert Pace((2, 4), 600.0, again=1.0, clock=lambda: 0.0).first() == 200
    assert Pace((1, 4), 600.0, clock=lambda: 0.0).first() == 600  # no run at the end


def test_a_last_run_that_is_cut_goes_on_from_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, started, build = list[str](), list[Prompt](), of_trial.started_from
    timed_by_steps(monkeypatch)

    def start(prompt: Prompt, *arguments: Any) -> Any:
        started.append(prompt)
        return build(prompt, *arguments)

    monkeypatch.setattr(of_trial, "started_from", start)
    settings = {"length": 2, "rate": 1e-2, "batch_size": 8, "start": "vocabulary"}
    search_of = functools.partial(
        found, train=rows(40), methods="soft", trials=1, refit=True, report=Lines(heard), **settings
    )
    given = {"head_start": None, "epochs": [4, 1]}
    whole = search_of(minutes=60 / 60, **given)  # a look has 4 steps, and a last run 20
    assert "tuning the settings of trial 0 again on all 40 rows, epochs 4" in heard
    assert not started
    heard.clear()
    cut = search_of(minutes=20 / 60, **given)
    assert "tuning the settings of trial 0 again on all 40 rows, epochs 3, from its prompt" in heard
    (look,) = started
    assert look.method["training"]["epochs"] == 1
    assert cut.prompt.method["training"]["epochs"] == 3
    assert cut.prompt.method["start"] == whole.prompt.method["start"] == "vocabulary"
    alone = tune(get(), TASK, "soft", rows(40), rows(20, 100), epochs=3, **settings, report=SILENT)
    assert tensors(cut.prompt) != tensors(alone)
    again = search_of(minutes=20 / 60, **given)
    assert tensors(again.prompt) == tensors(cut.prompt)


def test_only_methods_with_a_start_go_on_from_a_prompt(tmp_path: Path) -> None:
    settings = {"epochs": 1, "batch_size": 8, "report": SILENT}
    for name in ("soft", "ptuning", "deep", "prefix", "prefix+head"):
        prompt = tune(get(), TASK, name, rows(12), rows(6, 100), **settings)
        method, _ = recorded_method(prompt)
        begun = started_from(prompt, method, get(), tmp_path / f"{name}.safetensors")
        assert begun is not None
        assert has_start(begun)
        begun.build(TASK.bind(get()), rows(12), 0)
    assert not has_start(Head())


def test_a_last_run_that_the_time_ends_counts_once_it_is_as_long_as_the_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, seconds = timed_by_steps(monkeypatch)

    given = {"methods": "soft", "length": 2, "rate": 1e-2, "start": "vocabulary", "trials": 1}
    given |= {"head_start": None, "epochs": [4, 1], "refit": True, "minutes": 1}
    trial = found(**given | {"refit": False}).prompt
    for slow, said in (
        (1, "tuning the settings of trial 0 again on all 40 rows, epochs 4"),
        (5, "the time was up after 2.4 epochs, which the prompt has learned"),
        (20, "the time was up: the prompt is the one that was tuned in the search"),
    ):
        now[0], seconds[0], heard = 0.0, 1.0, list[str]()
        made = found(**given, report=Slower(heard, seconds, slow))
        assert heard[-1] == said
        assert (tensors(made.prompt) == tensors(trial)) == (slow == 20)


def test_a_search_that_is_too_short_for_a_last_run_tunes_the_usual_settings_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard, (now, seconds) = list[str](), timed_by_steps(monkeypatch)

    given = {"methods": "soft", "length": 2, "rate": 1e-2, "start": "vocabulary", "trials": None}
    given |= {"head_start": None, "epochs": [1, 4], "batch_size": 2}
    # a trial has 16 steps and the last run 80; four have gone before it is seen how long they take
    short = found(**given, refit=True, minutes=12 / 60, report=Lines(heard))
    assert "the time is too short to tune the best settings again on all rows" in heard
    assert not any(line.startswith("tuning the settings") for line in heard)
    assert [(each.state, each.reason) for each in short.trials] == [("complete", "the time was up")]
    now[0] = 0
    assert tensors(short.prompt) == tensors(found(**given, minutes=12 / 60).prompt)
    now[0] = 0
    heard.clear()
    longer = found(**given, refit=True, minutes=40 / 60, report=Slower(heard, seconds, 2))
    assert any(line.startswith("the time is too short for 32 rows") for line in heard)
    # the trial has half of the rows, and so half an epoch
    assert heard[-1] == "the time was up after 0.8 epochs, which the prompt has learned"
    assert longer.prompt.data["train"]["rows"] == 40


@pytest.mark.parametrize("error", [NotFiniteError("the loss is not finite"), MemoryError()])
def test_a_last_run_that_fails_leaves_the_prompt_of_the_search(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, heard = of_trial.Trials.tune, list[str]()

    def tune(self: Any, settings: Any, train: Any, *rest: Any, **more: Any) -> Prompt:
        if train is self.parts.every:
            raise error
        return before(self, settings, train, *rest, **more)

    monkeypatch.setattr(of_trial.Trials, "tune", tune)
    given = {"trials": 1, "epochs": 1, "rate": 1e-2}
    made = found(**given, refit=True, report=Lines(heard))
    assert heard[-1].startswith("it failed (")
    assert heard[-1].endswith("): the prompt is the one that was tuned in the search")
    assert tensors(made.prompt) == tensors(found(**given).prompt)


def test_an_epoch_and_its_scoring_are_timed_apart() -> None:
    now = 0.0
    heard = Judged(lambda step, value: None, math.inf, lambda: None, clock=lambda: now)
    for number, seconds in enumerate((7.0, 10.0, 10.0, 4.0, 11.0, 11.0, 6.0)):
        now += seconds
        if number % 3:
            heard.step(number, {})
        else:
            heard.score(number, "accuracy", 50.0)
    assert (heard.epoch, heard.scoring) == (26.0, 5.0)


def test_what_was_stopped_is_run_again_but_not_for_ever() -> None:
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rate = Choice("rate", low=0.01, high=1.0, usual=0.1)
    space = Space({"head": [rate]}, [Choice("epochs", (2, 1, 4))], {}, rated=True)
    study = optuna.create_study(direction="maximize")
    usual = {"head.rate": 0.1, "epochs": 1}
    for _ in range(3):
        assert next_trial(study, space, 9.0, lambda _, epochs: 0.0, (1, 2, 4)) == usual
        ended(study, usual, None, state=TrialState.FAIL)
    assert next_trial(study, space, 9.0, lambda _, epochs: 0.0, (1, 2, 4)) != usual
    other = {"head.rate": 0.5, "epochs": 1}
    ended(study, other, None, state=TrialState.FAIL, user_attrs={"reason": "it cannot be"})
    assert next_trial(study, space, 9.0, lambda _, epochs: 0.0, (1, 2, 4)) != other
    ended(study, other, None, state=TrialState.RUNNING)  # in another process
    ended(study, other, None, state=TrialState.FAIL)
    assert next_trial(study, space, 9.0, lambda _, epochs: 0.0, (1, 2, 4)) != other


def test_usual_settings_that_had_no_time_are_tried_when_there_is_some() -> None:
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rate = Choice("rate", low=0.01, high=1.0, usual=0.1)
    space = Space({"head": [rate]}, [Choice("epochs", (2, 1, 4))], {}, rated=True)
    for reason, again in ((TIME_UP, True), ("it fell behind", False)):
        study = optuna.create_study(direction="maximize")
        usual = {"head.rate": 0.1, "epochs": 1}
        ended(study, usual, None, state=TrialState.PRUNED, user_attrs={"reason": reason})
        coming = next_trial(study, space, 9.0, lambda _, epochs: 0.0, (1, 2, 4))
        assert (coming == usual) is again


def test_the_usual_settings_of_each_method_are_looked_at_if_a_look_fits() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rate = Choice("rate", low=0.01, high=1.0, usual=0.1)
    space = Space({"head": [rate], "soft": [rate]}, [Choice("epochs", (2, 1, 4))], {}, rated=True)
    study = optuna.create_study(direction="maximize")
    ended(study, {"method": "head", "head.rate": 0.1, "epochs": 1}, 80)
    look = {**space.usual("soft"), "epochs": 1}
    for left in (15, 100, 1000):  # a run of two epochs takes 20
        assert next_trial(study, space, left, lambda _, epochs: 10.0 * epochs, (1, 2, 4)) == look


def test_what_trials_share_changes_no_result() -> None:
    given = {"methods": "prefix+head", "head_start": "ridge", "length": 2, "upper": 0.5}
    made = found(**given, start="vocabulary", trials=3, epochs=1, rate=[1e-3, 1e-2, 3e-2])
    assert len({str(each.settings) for each in made.trials}) > 1
    parts = part_rows(rows(40), rows(20, 100), None, 0, "label")
    method = Prefix(length=2, start="vocabulary", upper=0.5, rate=made.best.settings["rate"])
    head = Head(head_start="ridge")
    factor = method.rate / Prefix().rate
    fresh = backbone(FAMILIES["llama"])
    joined = Several((method, dataclasses.replace(head, rate=head.rate * factor)))
    how = Training(epochs=1, batch_size=8)
    alone = tune_prompt(fresh, TASK, joined, *parts.folds[0], training=how)
    assert tensors(made.prompt) == tensors(alone)


@pytest.mark.slow
def test_templates_are_found_and_given_ones_are_chosen_among(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = Classify(labels=TASK.labels)
    whole = free.complete(rows(40), get())
    scored = find_templates(whole, rows(40), get(), 0, math.inf, SILENT)
    assert scored[0].template == "{text}\nLabel:"
    assert [each.source for each in scored] == ["usual", *(e.source for e in scored[1:])]
    assert len(scored) == 4
    assert [e.loss for e in scored[1:]] == sorted(e.loss for e in scored[1:])
    for each in scored:
        bound = dataclasses.replace(whole, template=each.template).bind(get())
        numbers = stratified([bound.class_of(row) for row in rows(40)], 16, 0)
        asked = [rows(40)[n] for n in numbers]
        answers = bound.predict(asked, NOTHING)
        right = [p["probabilities"][r.fields["label"]] for p, r in zip(answers, asked, strict=True)]
        assert each.loss == pytest.approx(-statistics.mean(map(math.log, right)), rel=1e-4)
    assert len(find_templates(whole, rows(40), get(), 0, 0.0, SILENT)) == 1  # no time is left
    out = tmp_path / "p.safetensors"
    made = found(task=free, trials=3, out=out)
    others = [each["template"] for each in made.about["templates"]]
    assert [each.settings["template"] for each in made.trials[:2]] == others[:2]
    monkeypatch.setattr(foreword.prompt_search.wording, "find_templates", None)  # not asked again
    assert len(found(task=free, trials=4, out=out, resume=True).trials) == 4
    given = ["{text} :", "it {text} was"]
    chosen = found(task="classify", template=given, labels=TASK.labels, trials=6, rate=3e-2)
    assert {each.settings["template"] for each in chosen.trials} == set(given)
    assert chosen.prompt.task.template == chosen.best.settings["template"]
    with pytest.raises(UserError, match="no field 'txt'"):
        found(task="classify", template=["{text}", "{txt}"], labels=TASK.labels)


def test_the_model_is_shown_as_many_rows_as_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths: list[int] = []

    def write(backbone: Backbone, openings: Any, *rest: Any) -> list[Any]:
        lengths.extend(len(each.ids) for each in openings)
        return []

    monkeypatch.setattr(foreword.prompt_search.templates, "written", write)
    model = get("gpt2")  # whose positions are learned
    for words, shown in ((300, [3]), (1100, [])):
        text = " ".join(["film"] * words)
        given = [
            dataclasses.replace(row, fields={"text": text, "label": row.fields["label"]})
            for row in rows(6)
        ]
        lengths.clear()
        find_templates(Classify().complete(given, model), given, model, 0, math.inf, SILENT)
        assert [length // words for length in lengths] == shown


def test_label_words_are_found_once_and_as_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    before = foreword.tasks.classify.choose_label_words

    def choose(*arguments: Any) -> Any:
        searched.append(arguments[1])
        return before(*arguments)

    monkeypatch.setattr(foreword.tasks.classify, "choose_label_words", choose)
    given = {"methods": "soft", "length": 2, "start": "vocabulary", "head_start": None, "epochs": 1}
    made = found(
        **given, task=Classify(template="{text} :"), verbalizer=["search"], rate=[1e-3, 1e-2]
    )
    assert searched == ["search"]  # for all trials
    words = made.prompt.task.labels
    assert words != {"good": (" good",), "bad": (" bad",)}
    parts = part_rows(rows(40), rows(20, 100), None, 0, "label")
    rate = made.best.settings["rate"]
    method = Soft(length=2, start="vocabulary", rate=rate)
    how = Training(epochs=1, batch_size=8)
    task = Classify(template="{text} :", verbalizer="search")
    alone = tune_prompt(get(), task, method, *parts.folds[0], training=how)
    assert (alone.task.labels, tensors(alone)) == (words, tensors(made.prompt))
    for words, names in ((None, ["manual", "search"]), ("manual", ["manual"])):
        given |= {"task": "classify", "template": "{text} :", "verbalizer": words}
        made = found(**given, trials=1)
        assert made.about["space"]["methods"]["soft"]["verbalizer"] == names


def test_importances_and_the_front_say_what_mattered() -> None:
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    study = optuna.create_study(direction="maximize")
    chance = random.Random(0)
    for number in range(30):
        params = {"rate": chance.random(), "dropout": chance.random()}
        if number % 2:
            params["soft.length"] = chance.random()
        kinds = {name: FloatDistribution(0, 1) for name in params}
        study.add_trial(
            create_trial(params=params, distributions=kinds, value=100 * params["rate"])
        )
    said = importances(study, 0)
    assert said["rate"] > 0.9
    assert said["dropout"] < 0.1 > said["soft.length"]
    assert importances(study, -1).keys() == said.keys()

    def trial(number: int, score: float, kilobytes: float) -> Tried:
        return Tried(number, "soft", {}, "complete", score, 1.0, None, 60.0, kilobytes, 5.0)

    trials = [trial(0, 80, 10), trial(1, 70, 5), trial(2, 90, 40), trial(3, 85, 60)]
    assert [each.number for each in on_front(trials, "kilobytes")] == [1, 0, 2]


def test_models_are_looked_at_and_those_that_cannot_go_are_left_out() -> None:
    def load(name: str) -> Backbone:
        if name == "none":
            raise UserError("no such model")
        return get(name)

    looks = look_at(["none", "llama", "bert"], load, Classify(), rows(40), 0, SILENT)
    assert {each.model for each in looks[:2]} == {"llama", "bert"}
    assert looks[0].promise >= looks[1].promise
    assert (looks[2].model, looks[2].reason) == ("none", "no such model")
    llama = next(each for each in looks if each.model == "llama")
    assert llama.probe is not None
    numbers = sum(p.numel() for p in get().model.parameters())
    assert llama.megabytes == pytest.approx(4e-6 * numbers)
    assert llama.seconds > 0 == looks[2].seconds
    with pytest.raises(UserError, match="none of the models can be used: none: no such model"):
        look_at(["none"], load, Classify(), rows(40), 0, SILENT)


def test_models_are_chosen_by_rows_that_trials_are_tuned_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, looked = rows(40), []
    before = foreword.prompt_search.search.look_at

    def look(models: Any, load: Any, task: Any, rows: Any, *more: Any) -> Any:
        looked.extend(rows)
        return before(models, lambda name: get(), task, rows, *more)

    monkeypatch.setattr(foreword.prompt_search.search, "look_at", look)
    monkeypatch.setattr(foreword.prompt_search.search, "backbone_of", lambda name: get())
    found(train=given, dev=None, models=["a", "b"], trials=1)
    parts = part_rows(given, None, None, 0, "label")
    assert looked == parts.folds[0][0]


def test_the_time_counts_from_when_the_model_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clocked(monkeypatch)

    def opened(model: Any) -> Backbone:
        now[0] += 600
        return get()

    monkeypatch.setattr(foreword.prompt_search.search, "backbone_of", opened)
    assert found(trials=1, minutes=5).best.state == "complete"
    looks = [Look("llama", seconds=301)]
    monkeypatch.setattr(foreword.prompt_search.search, "look_at", lambda *given: looks)
    with pytest.raises(UserError, match=r"no trial came to its end \(none was begun\)"):
        found(models=["llama"], trials=1, minutes=5)


@pytest.mark.slow
def test_a_hard_prompt_is_the_best_text_and_stands_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    how = Training(epochs=1, batch_size=8)
    given = (get(), TASK, rows(40), rows(12, 100))
    made = search_hard(*given, length=3, minutes=0.3, training=how, out=out)
    parts = part_rows(rows(40), rows(12, 100), None, 0, "label")
    bound = TASK.complete(rows(40), get()).bind(get())
    best = evaluate_text(bound, made.text, parts.folds[0][1])
    assert made.texts[0].score == best == max(each.score for each in made.texts)
    assert made.held == evaluate_text(bound, made.text, parts.held)
    assert "by gradient" in {each.source for each in made.texts}
    assert Prompt.load(out).data["text"] == made.text
    with pytest.raises(UserError, match="`length=0`: give 1 or more"):
        search_hard(*given, length=0)


def evaluate_text(bound: Any, text: str, given: Any) -> float:
    """The accuracy of the untouched model on rows that a text stands in front of."""
    plain = dataclasses.replace(bound.task, template=f"{text}\n{bound.task.template}").bind(get())
    answers = plain.predict(given, NOTHING)
    right = [a["label"] == row.fields["label"] for a, row in zip(answers, given, strict=True)]
    return 100 * sum(right) / len(right)


def test_a_text_is_as_surprising_as_the_models_own_loss_says() -> None:
    ids = get().text.ids("film it was good")
    first = get().text.around[0] or tuple(get().text.ids("\n"))
    whole = torch.tensor([[*first, *ids]])
    labels = whole.clone()
    labels[:, : len(first)] = -100
    with torch.no_grad():
        loss = get().model(input_ids=whole, labels=labels).loss
    assert nats_of(get(), ids) == pytest.approx(float(loss), rel=1e-4)
    assert nats_of(get("bert"), ids) is None


def counted(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None] = lambda n: None) -> list:
    """Count the runs that trials make; ``act`` is called with the number of each before it."""
    made: list[int] = []
    before = of_trial.tune_prompt

    def tune(*arguments: Any, **more: Any) -> Prompt:
        made.append(len(made))
        act(made[-1])
        return before(*arguments, **more)

    monkeypatch.setattr(of_trial, "tune_prompt", tune)
    return made


def clocked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let searches go by a clock of ours; return what it says."""
    now, module = [0.0], foreword.prompt_search.search
    by_ours = functools.partial(module.search_prompts, clock=lambda: now[0])
    monkeypatch.setattr(module, "search_prompts", by_ours)
    return now


def timed_by_steps(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float]]:
    """Let each step move the clock of searches; return what it says, and the seconds of a step."""
    now, seconds, before = clocked(monkeypatch), [1.0], Judged.step

    def step(self: Any, number: int, values: Any) -> None:
        now[0] += seconds[0]
        before(self, number, values)

    monkeypatch.setattr(Judged, "step", step)
    return now, seconds


class Slower(Lines):
    """Lets a step of the last run take other ``seconds``."""

    def __init__(self, heard: list[str], seconds: list[float], then: float) -> None:
        super().__init__(heard)
        self.seconds, self.then = seconds, then

    def line(self, text: str) -> None:
        super().line(text)
        if text.startswith("tuning the settings"):
            self.seconds[0] = self.then


def test_a_trial_that_cannot_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clocked(monkeypatch)

    def pass_a_minute(number: int) -> None:
        now[0] += 60

    counted(monkeypatch, pass_a_minute)
    made = found(trials=None, minutes=2.5)
    assert [each.seconds for each in made.trials] == [60, 60]
    with pytest.raises(UserError, match=r"no trial came to its end \(the time was up\)"):
        found(trials=None, minutes=0.5)


def test_the_last_trial_is_stopped_and_the_best_of_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, _ = timed_by_steps(monkeypatch)

    made = found(trials=None, minutes=7.5 / 60, rate=3e-2)  # an epoch has 4 steps, a trial 8
    assert [(each.state, each.reason) for each in made.trials] == [("complete", "the time was up")]
    assert made.best.score == made.prompt.scores["dev"]["accuracy"]
    long = found(trials=None, minutes=3.5 / 60, rate=3e-2)  # not even an epoch
    parts = part_rows(rows(40), rows(20, 100), None, 0, "label")
    start = evaluate(
        tune_prompt(
            get(), TASK, Head(head_start="random", rate=1e-9), *parts.folds[0], training=Training(1)
        ),
        rows(20, 100),
        report=SILENT,
    )
    assert tensors(long.prompt) != tensors(made.prompt)
    assert long.best.score >= start.score
    now[0] = 0
    heard: list[str] = []
    many = found(trials=None, minutes=12 / 60, rate=3e-2, epochs=8, report=Lines(heard))
    # 32 steps, of which there is time for 12: the first trial is tuned on half of the rows
    short = (
        "the time is too short for {} rows: trials are tuned on {} of them, "
        "and judged by {} dev rows"
    )
    assert short.format(32, 16, 20) in heard  # those that are given
    assert (many.prompt.data["train"]["rows"], many.prompt.scores["dev"]["rows"]) == (16, 20)
    now[0] = 0
    alone = {"train": rows(250), "test": None, "dev": None, "epochs": 4}
    many = found(trials=None, minutes=20 / 60, rate=3e-2, report=Lines(heard), **alone)
    # 160 and 40 of 250 rows; of 80 steps there is time for 20
    assert short.format(160, 16, 32) in heard
    assert (many.prompt.data["train"]["rows"], many.prompt.scores["dev"]["rows"]) == (16, 32)
    few = found(trials=None, minutes=4.5 / 60, dev=None, epochs=1, train=rows(30), rate=3e-2)
    assert few.about["rows"]["folds"] == 3
    (only,) = few.trials  # the first fold has 2 steps, and the time is up in the third
    assert (only.state, only.reason) == ("complete", "the time was up")


def test_ctrl_c_keeps_all_that_is_done_and_the_same_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(number: int) -> None:
        if number == 2:
            raise Interrupted("stopped")

    out = tmp_path / "p.safetensors"
    with monkeypatch.context() as patched:
        counted(patched, stop)
        with pytest.raises(Interrupted, match=r"stopped after 2 trials; the best so far is in"):
            found(out=out, trials=5)
    first = json.loads(out.with_suffix(".search.json").read_text())
    assert [each["state"] for each in first["trials"]][2] == "failed"
    assert first["trials"][2]["reason"] == "the search was stopped"
    assert Prompt.load(out).scores["dev"]["accuracy"] == first["best"]["score"]
    with pytest.raises(UserError, match=r"a study 'p' is there already; `resume` goes on"):
        found(out=out)
    with pytest.raises(UserError, match=r"study 'p' is of another rows"):
        found(out=out, resume=True, train=rows(38))
    with monkeypatch.context() as patched:
        patched.setattr(foreword.prompt_search.search, "versions", lambda: {"foreword": "9"})
        with pytest.raises(UserError, match=r"study 'p' is of another version"):
            found(out=out, resume=True)
    with pytest.raises(UserError, match=r"study 'p' is of another space"):
        found(out=out, resume=True, epochs=1)
    with monkeypatch.context() as patched:
        tuned = counted(patched)
        assert found(out=out, resume=True, trials=3).best.score == first["best"]["score"]
        assert not tuned  # the file holds the prompt of the best trial
    made = found(out=out, resume=True, trials=5)
    assert len(made.trials) == 5
    assert json.loads(json.dumps(made.to_dict()["trials"][:3])) == first["trials"]
    kept = json.loads(out.with_suffix(".search.json").read_text())
    assert kept["best"]["score"] == made.best.score
    assert kept["held_back"]["accuracy"] == Prompt.load(out).scores["test"]["accuracy"]


def test_the_file_of_a_stopped_search_is_known_by_the_trial_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def better(study: Any, space: Space, *rest: Any, **more: Any) -> Any:
        return {**space.usual(), "rate": 3e-2}

    def stop(*arguments: Any, **more: Any) -> Any:
        raise Interrupted("stopped")

    out = tmp_path / "one.safetensors"
    given = {"storage": tmp_path / "s.jsonl", "study": "s", "rate": [1e-9, 3e-2]}
    found(**given, out=out, trials=1)
    with monkeypatch.context() as patched:
        patched.setattr(foreword.prompt_search.budget, "next_trial", better)
        best = found(**given, out=tmp_path / "two.safetensors", join=True, trials=2)
    assert best.best.number == 1
    given |= {"out": out, "join": True}
    with monkeypatch.context() as patched:
        patched.setattr(foreword.prompt_search.budget, "next_trial", stop)
        with pytest.raises(Interrupted, match=r"trial 1 is the best, but the prompt of trial 0 is"):
            found(**given, trials=9)
    told = json.loads(out.with_suffix(".search.json").read_text())["best"]
    assert (told["number"], told["score"]) == (0, Prompt.load(out).scores["dev"]["accuracy"])
    tuned, heard = counted(monkeypatch), list[str]()
    made = found(**given, trials=2, report=Lines(heard))
    assert "the prompt of trial 1 is not at hand: it is tuned again" in heard
    assert len(tuned) == 1
    assert tensors(made.prompt) == tensors(best.prompt)


def test_a_search_that_goes_on_has_the_rows_and_the_pace_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, _ = timed_by_steps(monkeypatch)
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    given = {"train": rows(250), "dev": None, "epochs": 4, "rate": [1e-9, 3e-2]}
    found(**given, out=whole, trials=1, minutes=15)  # 80 steps
    for minutes, ended in ((20 / 60, [80.0]), (90 / 60, [80.0, 80.0])):
        now[0], heard = 0.0, list[str]()
        more = {"out": whole, "resume": True, "trials": 2, "minutes": minutes}
        made = found(**given, **more, report=Lines(heard))
        assert not any("too short" in line for line in heard)
        assert [each.seconds for each in made.trials] == ended
    now[0] = 0.0
    short = found(**given, out=cut, trials=1, minutes=20 / 60)
    assert short.prompt.data["train"]["rows"] == 16
    cut.unlink()
    again = found(**given, out=cut, resume=True, trials=1)
    assert tensors(again.prompt) == tensors(short.prompt)


def test_a_stopped_trial_goes_on_from_its_checkpoint_to_the_same_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"rate": 1e-2, "epochs": 3, "trials": 1}
    whole = found(**given)
    out, before = tmp_path / "p.safetensors", Judged.step
    steps: list[int] = []

    def step(self: Any, number: int, values: Any) -> None:
        steps.append(number)
        before(self, number, values)
        if len(steps) == 6:
            raise Interrupted("stopped")

    monkeypatch.setattr(Judged, "step", step)
    with pytest.raises(Interrupted):
        found(**given, out=out)
    kept = tmp_path / ".p.safetensors.trials"
    assert kept.is_dir()
    made = found(**{**given, "trials": 2}, out=out, resume=True)
    assert [each.state for each in made.trials] == ["failed", "complete"]
    assert steps == [1, 2, 3, 4, 5, 6, *range(5, 13)]  # from the end of the first epoch
    assert tensors(made.prompt) == tensors(whole.prompt)
    assert made.best.score == whole.best.score
    assert not kept.exists()


def test_folds_that_were_done_are_not_tuned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"rate": 1e-2, "epochs": 1, "dev": None, "train": rows(30), "trials": 1}
    whole, out = found(**given), tmp_path / "p.safetensors"

    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        counted(patched, stop)
        with pytest.raises(KeyboardInterrupt):
            found(**given, out=out)
    tuned = counted(monkeypatch)
    made = found(**{**given, "trials": 2}, out=out, resume=True)
    assert len(tuned) == 1  # the third fold
    assert made.best.score == whole.best.score
    assert tensors(made.prompt) == tensors(whole.prompt)


def test_the_table_shows_what_runs_and_what_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tables(Reporter):
        def table(self, header: Any, rows: Any) -> None:
            shown.append([tuple(row[:2]) for row in rows])

    shown: list[Any] = []
    monkeypatch.setattr(foreword.prompt_search.live, "APART", 0.0)
    found(trials=2, report=Tables())
    assert shown[0] == [("0", "head")]
    assert [("1", "head"), ("best: 0", "head")] in shown
    assert shown[-1] == []


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    found(storage=url, trials=1, study="s")
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=take_part, args=(url, tmp_path / "dead", killed))
        for killed in (True, False)
    ]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    assert [each.exitcode for each in workers] == [-signal.SIGKILL, 0]
    made = found(storage=url, study="s", join=True, trials=5)
    states = Counter(each.state for each in made.trials)
    assert states["running"] + states["failed"] == 1  # the one that was killed in its trial
    assert len(made.trials) == 5
    assert all(each.score is not None for each in made.trials if each.state == "complete")


def take_part(url: str, dead: Path, killed: bool) -> None:
    """Join a study; one process dies in its second trial, and the other goes on after that."""

    def die(number: int) -> None:
        if not killed:
            until(dead.exists)
        elif number == 1:
            dead.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    counted(pytest.MonkeyPatch(), die)
    found(storage=url, study=None, join=True, trials=5)


class Told(Reporter):
    """Keeps what was begun: the last run, and bars by their names."""

    def __init__(self) -> None:
        self.begun = list[str]()

    def line(self, text: str) -> None:
        self.begun.append(text.split()[0])

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        self.begun.append(name)
        yield lambda rows: None


def test_the_last_run_is_foreseen_by_the_rows_that_it_learns() -> None:
    given = rows(500)
    assert part_rows(given, None, None, 0, "label").again == 450 / 320  # a tenth is held back
    assert part_rows(given, rows(9, 600), None, 0, "label").again == 500 / 400
    assert part_rows(rows(20), None, None, 0, "label").again == 18 / 32  # three folds of 16


def test_few_rows_are_judged_in_folds_and_many_on_a_part() -> None:
    given = rows(23)
    parted = folds(given, 5, 0, "label")
    assert sorted(row.where for _, dev in parted for row in dev) == sorted(r.where for r in given)
    for train, dev in parted:
        assert len(train) + len(dev) == 23
        labels = Counter(row.fields["label"] for row in dev)
        assert abs(labels["good"] - labels["bad"]) <= 1
    few, many = (
        part_rows(given, None, None, 0, "label"),
        part_rows(rows(FEW * 2), None, None, 0, "label"),
    )
    assert (len(few.folds), len(many.folds)) == (3, 1)
    told = Told()
    made = found(
        train=rows(15), dev=None, test=rows(6, 200), trials=1, epochs=1, refit=True, report=told
    )
    assert [name for name in told.begun if name in ("tuning", "held back")] == [
        "tuning",  # which has the time that scoring would take
        "held back",
    ]
    assert made.about["rows"] == {**made.about["rows"], "folds": 3, "dev": 15, "held": 6}
    assert made.prompt.scores["dev"]["accuracy"] == made.best.score
    settings = {"head_start": "random", "batch_size": 8, "rate": made.best.settings["rate"]}
    alone = tune(get(), TASK, "head", rows(15), epochs=1, **settings, report=SILENT)
    assert tensors(made.prompt) == tensors(alone)  # tuned again as by itself


def test_a_few_rows_of_rare_classes_leave_no_fold_without_dev_rows() -> None:
    labels = ("good", "good", "bad", "film", "film")
    given = as_rows([{"text": f"film {n}", "label": label} for n, label in enumerate(labels)])
    for seed in range(4):
        assert all(dev for _, dev in part_rows(given, None, None, seed, "label").folds)


def test_a_large_number_is_a_seed() -> None:
    assert len(found(seed=2**32, trials=1).trials) == 1


def test_no_number_of_epochs_is_as_none_given() -> None:
    given = {"train": rows(40), "dev": rows(20, 100), **TINY, "epochs": None}
    made = search(get(), TASK, trials=1, report=SILENT, **given)
    assert made.about["space"]["shared"]["epochs"] == [1, 2, 4]


def test_files_beside_a_prompt_are_its_own(tmp_path: Path) -> None:
    for path in (study_path, result_path, page_path):
        names = {path(tmp_path / name).name for name in ("m1.5", "m1.7", "m1.safetensors")}
        assert len(names) == 3
        assert path(tmp_path / "m1.safetensors").name.startswith("m1.s")
    out = tmp_path / "p.safetensors"
    places = {Unfinished.beside(out, {"seed": n}).place({}, rows(2)) for n in (0, 1)}
    assert len(places) == 2


def test_what_is_known_of_a_study_is_that_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def known(storage: Any, name: str | None) -> dict[str, Any]:
        asked.append(name)
        return {}

    monkeypatch.setattr(foreword.prompt_search.search, "kept_about", known)
    given = {"storage": tmp_path / "s.jsonl", "trials": 1}
    assert found(**given).about["study"] == "search"
    found(**given, join=True)
    assert asked == ["search", None]  # the only one there is


def test_a_list_is_one_value_of_a_setting_that_is_a_list() -> None:
    given = {"targets": ("q_proj", "v_proj"), "rank": (4, np.int64(8)), "rate": np.float32(0.5)}
    found = choices_of({**given, "attends": None})
    assert found["targets"] == [["q_proj", "v_proj"]]
    assert (found["rank"], found["rate"], found["attends"]) == ([4, 8], [0.5], [None])
    assert {type(each) for each in (*found["rank"], *found["rate"])} == {int, float}
    apart = [["q_proj"], ["q_proj", "v_proj"]]
    assert choices_of({"targets": apart})["targets"] == apart


def test_a_method_that_the_model_cannot_take_is_left_out_with_its_reason() -> None:
    class Lines(Reporter):
        def line(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    task = Generate(template="{text} :", decoding=Decoding(max_new_tokens=2))
    pairs = [{"text": f"film {n}", "completion": "good"} for n in range(8)]
    made = search(
        get(), task, "head,soft", pairs, pairs, pairs, trials=1, epochs=1, report=Lines(), length=2
    )
    assert made.best.method == "soft"
    assert "no classes to score" in made.about["space"]["skipped"]["head"]
    assert any(line.startswith("head is left out: ") for line in said)
    with pytest.raises(UserError, match=r"none of the methods can be tuned on .*: head: "):
        search(get(), task, "head", pairs, report=SILENT)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minutes": 0}, "`minutes=0`: give more than 0"),
        ({"trials": 0}, "`trials=0`: give 1 or more"),
        ({"methods": []}, "`methods` names none"),
        ({"methods": "haed"}, "`methods=haed`: unknown 'haed'; did you mean 'head'?"),
        ({"epochs": []}, "`epochs` has no values"),
        ({"lr": 1.0, "rate": 1.0}, "`lr` and `rate` are one setting; leave one out"),
        ({"epochs": [1, 0]}, "epochs is 0; it must be at least 1"),
        (
            {"rank": 2},
            "head; known are: head_form, head_start, head_temperature, rate, shots",
        ),
        (
            {"hed_form": 2},
            "`hed_form` is no setting of the methods head; did you mean 'head_form'?",
        ),
        ({"train": rows(4)}, "4 rows are too few to search with"),
        ({"dev": []}, "there are no dev rows; give some, or leave `dev` out"),
        ({"test": []}, "there are no test rows; give some, or leave `test` out"),
        ({"storage": "postgresql://localhost:1/x"}, "`storage=postgresql://localhost:1/x`: "),
        (
            {"storage": "mysql://me:se/cr@et@localhost:1/x"},
            "`storage=mysql://localhost:1/x`: ",
        ),
        ({"storage": "sqlite:////nowhere/x.db"}, "unable to open database file"),
        ({"join": True}, "`join` takes part in a study of a `storage`"),
    ],
)
def test_wrong_input_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        found(**given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_storage_that_is_another_file_and_a_study_that_is_not_there(tmp_path: Path) -> None:
    other = tmp_path / "x.bin"
    other.write_bytes(b"\xff\xfe\x00 nothing")
    with pytest.raises(UserError, match=r"x.bin`: is another file"):
        open_storage(other)
    with pytest.raises(
        UserError, match=r"s.jsonl`: there is no such file, and so no study to join"
    ):
        found(storage=tmp_path / "s.jsonl", study="s", join=True)
    assert not (tmp_path / "s.jsonl").exists()
    url = f"sqlite:///{tmp_path / 's.db'}"
    with pytest.raises(UserError, match=r"s.db`: there is no such file, and so no study to join"):
        found(storage=url, study="s", join=True)
    assert not (tmp_path / "s.db").exists()
    with optuna_quiet():
        open_storage(url)
    with pytest.raises(UserError, match=r"`study=s`: there is no such study to join; it has none"):
        found(storage=url, study="s", join=True)


def test_without_optuna_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'foreword\[search\]'"):
        found()
