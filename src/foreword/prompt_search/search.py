"""The search: trials within minutes, the best prompt of them, and what its score is worth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.shared import backbone_of
from foreword.config.settings import in_code
from foreword.config.values import plain
from foreword.data.folder import DEV, TEST
from foreword.data.rows import TAKEN, Rows, as_rows
from foreword.errors import UserError
from foreword.files import check_place
from foreword.grammar import counted
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.budget import count_begun, run_trials
from foreword.prompt_search.live import Live
from foreword.prompt_search.models import Look, look_at
from foreword.prompt_search.outcome import conclude, kept_file, note_file, study_path
from foreword.prompt_search.pace import Pace
from foreword.prompt_search.parts import Parts, part_rows
from foreword.prompt_search.searched import Searched
from foreword.prompt_search.space import (
    EPOCHS,
    OF_TASK,
    VERBALIZER,
    Space,
    check_choices,
    choices_of,
    make_space,
)
from foreword.prompt_search.study import NAME, kept_about, open_storage, open_study, optuna_quiet
from foreword.prompt_search.templates import ScoredTemplate
from foreword.prompt_search.trial import Trials
from foreword.prompt_search.unfinished import Unfinished
from foreword.prompt_search.wording import Wording, find_wording
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Task
from foreword.tasks.registry import name_of
from foreword.terminal import usual_reporter
from foreword.training.configure import make_task
from foreword.training.provenance import versions
from foreword.training.settings import Training

MINUTES = 10.0
"""The time of a search that is limited by neither minutes nor trials."""

TEMPLATE_SHARE = 0.06
"""The share of the time that may go by before the first trial, to find templates."""


def search(
    model: Backbone | str | Path = "smollm2",
    task: Task | str = "classify",
    methods: Sequence[str] | str | None = None,
    train: Rows | None = None,
    dev: Rows | None = None,
    test: Rows | None = None,
    *,
    text: str | None = None,
    label: str | None = None,
    models: Sequence[str | Path] = (),
    minutes: float | None = None,
    trials: int | None = None,
    out: str | Path | None = None,
    storage: str | Path | None = None,
    study: str | None = None,
    resume: bool = False,
    join: bool = False,
    refit: bool = False,
    seed: int = 0,
    report: Reporter | None = None,
    **settings: Any,
) -> Searched:
    """Search the method and the settings of a prompt for ``minutes``, or ``trials`` of them.

    ``methods`` are names such as ``"prefix+head"``; without them the usual ones of the task are
    tried. ``settings`` are those of the task, and those of methods and training that are not
    searched, or among fewer values: ``length=[5, 10]``, ``epochs=2``. Of the task a list of
    templates, or of ways to find label words (``verbalizer``), is chosen among too; a few are
    found where neither a template nor labels are given. ``model``, ``task``, the
    rows, ``text`` and ``label`` are as in :func:`tune`.

    Of several base ``models``, in place of ``model``, the one is searched on whose states a linear
    probe reads best, or that answers best untouched.

    Without ``test`` a fifth of the rows is held back, on which the best prompt is scored at the
    end. Trials are judged by ``dev``, without it by a fifth of the other rows, and below 200 rows
    by all of them in three folds. With ``refit`` the best settings are tuned again, as :func:`tune`
    does, on all rows that are not ``test``; time is left for that.

    The best prompt so far is kept in ``out``. The study is kept in ``storage``, a database's URL or
    a journal file: by default a file beside ``out``, and in memory without that. ``resume`` goes on
    with the ``study`` of that name, ``join`` takes part in one that runs elsewhere.

    Raises UserError for wrong input before the first trial, and where no trial succeeds;
    Interrupted after Ctrl-C, when the best prompt so far is written.
    """
    if train is None:
        raise UserError(f"there are no rows to train on; give `train`: {TAKEN}")
    given = {**in_code(settings), "seed": seed}
    several = {n: given.pop(n) for n in OF_TASK if isinstance(given.get(n), list | tuple)}
    if VERBALIZER in given:  # the usual one too is not searched beside others then
        several[VERBALIZER] = [given[VERBALIZER]]
    chosen = make_task(task, given, text, label)
    given = {**given, **several}
    given.pop("seed", None)
    if given.get(EPOCHS, 0) is None:
        del given[EPOCHS]
    choices = choices_of(given)
    report = usual_reporter() if report is None else report
    pair = chosen.pair
    rows = as_rows(train, fields=pair, report=report)
    judges = None if dev is None else as_rows(dev, split=DEV, name="dev row", fields=pair)
    tests = None if test is None else as_rows(test, split=TEST, name="test row", fields=pair)
    check_limits(minutes, trials)
    looks: list[Look] = []
    if models:
        tuned, _ = part_rows(rows, judges, tests, seed, chosen.class_field).folds[0]
        looks = look_at([str(m) for m in models], backbone_of, chosen, tuned, seed, report)
        model = looks[0].model
    return search_prompts(
        backbone_of(model),
        chosen,
        methods.split(",") if isinstance(methods, str) else methods,
        choices,
        rows,
        judges,
        tests,
        minutes=minutes,
        trials=trials,
        out=out,
        storage=storage,
        study=study,
        resume=resume,
        join=join,
        refit=refit,
        seed=seed,
        report=report,
        looks=looks,
    )


def check_limits(minutes: float | None, trials: int | None) -> None:
    """Raise UserError for a search without time, or without trials."""
    if minutes is not None and not 0 < minutes < math.inf:
        raise UserError(f"`minutes={minutes:g}`: give more than 0")
    if trials is not None and trials < 1:
        raise UserError(f"`trials={trials}`: give 1 or more")


def search_prompts(
    backbone: Backbone,
    task: Task,
    methods: Sequence[str] | None,
    choices: Mapping[str, Sequence[Any]],
    train: Sequence[Any],
    dev: Sequence[Any] | None,
    test: Sequence[Any] | None,
    *,
    minutes: float | None = None,
    trials: int | None = None,
    out: str | Path | None = None,
    storage: str | Path | None = None,
    study: str | None = None,
    resume: bool = False,
    join: bool = False,
    refit: bool = False,
    seed: int = 0,
    report: Reporter = SILENT,
    looks: Sequence[Look] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Searched:
    """Search as :func:`search` does, with a task that is configured and rows that are read.

    ``choices`` are the values of settings of methods and training that are narrowed or fixed.
    ``looks`` are those at base models, the best of which is the ``backbone``; what they took is
    time of the search, which goes by the ``clock``.
    """
    began = clock() - sum(each.seconds for each in looks)
    check_limits(minutes, trials)
    check_choices(methods, choices)
    if join and (resume or storage is None):
        raise UserError(
            "`join` takes part in a study of a `storage`, and `resume` goes on with one alone; "
            "give `storage`, and one of the two"
        )
    minutes = MINUTES if minutes is None and trials is None else minutes
    deadline = math.inf if minutes is None else began + 60 * minutes
    target = None if out is None else Path(out)
    if target is not None:
        check_place(target)
    with optuna_quiet():
        where = storage if storage is not None or target is None else study_path(target)
        kept = open_storage(where, join=join)
        named = study or (None if join else NAME if target is None else target.stem)
        parts = part_rows(train, dev, test, seed, task.class_field)
        tuned, _ = parts.folds[0]
        wording = find_wording(
            task,
            choices,
            train,
            parts,
            backbone,
            [ScoredTemplate(**each) for each in kept_about(kept, named).get("templates", ())],
            seed=seed,
            until=began + TEMPLATE_SHARE * (deadline - began),
            report=report,
            clock=clock,
        )
        task = wording.task
        filled = task.fill_from_rows(backbone, tuned, seed, SILENT).bind(backbone)
        space = make_space(filled, tuned, methods, wording.choices, seed)
        for name in methods or ():
            if name in space.skipped:
                report.line(f"{name} is left out: {space.skipped[name]}")
        report.line(str(parts))
        about = _about(backbone, wording, space, parts, seed)
        opened = open_study(kept, named, about, seed=seed, resume=resume, join=join)
        if (there := count_begun(opened)) and not join:
            report.line(f"going on after {counted(there, 'trial')} of study '{opened.study_name}'")
        began_trials, live = clock(), Live(opened, report)
        total = 0 if minutes is None else round(60 * minutes)
        with report.bar("searching", total) as progress:
            shown = 0

            def keep(number: int, prompt: Prompt) -> None:
                if target is not None:
                    prompt.save(target)
                    note_file(opened, number, target)

            def passed() -> None:
                nonlocal shown
                now = int(clock() - began_trials)
                if total and now > shown:
                    progress(now - shown)
                    shown = now
                live.show()

            unfinished = Unfinished() if target is None else Unfinished.beside(target, about)
            if not (resume or join):
                unfinished.forget()
            pace = Pace(space.epochs, deadline, parts.again if refit else 0.0, clock)
            runner = Trials(
                backbone,
                task,
                space,
                parts,
                Training(seed=seed, refit="off"),
                pace,
                keep,
                passed,
                say=report.line,
                unfinished=unfinished,
            )
            runner.go_on(opened, paced=not join)
            if target is not None:
                runner.kept = kept_file(opened, target, backbone)
            stopped = run_trials(opened, runner, space, trials, report)
            report.table((), ())
        about = {**about, "models": [asdict(each) for each in looks]}
        return conclude(opened, runner, parts, about, target, stopped=stopped, report=report)


def _about(
    backbone: Backbone, wording: Wording, space: Space, parts: Parts, seed: int
) -> dict[str, Any]:
    """Say what a study is of, so that no other one is mixed with it."""
    return {
        "version": versions()["foreword"],
        "model": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "task": {"name": name_of(wording.task), **plain(wording.task)},
        "templates": [asdict(each) for each in wording.scored],
        "rows": parts.about(),
        "space": space.to_dict(),
        "seed": seed,
    }
