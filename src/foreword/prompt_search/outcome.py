"""The outcome: the best prompt is scored on the rows held back, and written with its trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.files import beside, write_whole
from foreword.grammar import counted
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.importance import importances
from foreword.prompt_search.judged import Judged
from foreword.prompt_search.page import page
from foreword.prompt_search.parts import Parts
from foreword.prompt_search.searched import Searched
from foreword.prompt_search.space import EPOCHS
from foreword.prompt_search.trial import Trials
from foreword.prompt_search.tried import METRIC, SETTINGS, Tried, best_of, tried
from foreword.reporter import Reporter, Reporters
from foreword.training.interrupt import Enough, Interrupted
from foreword.training.started import has_start

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def study_path(out: Path) -> Path:
    """Return the journal of the study whose best prompt is written to ``out``."""
    return beside(out, "study.jsonl")


def result_path(out: Path) -> Path:
    """Return the file that says how the search of a prompt went."""
    return beside(out, "search.json")


def page_path(out: Path) -> Path:
    """Return the page of a search."""
    return beside(out, "search.html")


def note_file(study: Study, number: int, file: Path) -> None:
    """Keep in the study that the file as it is now holds the prompt of a trial."""
    study.set_user_attr(_mark(file), number)


def kept_file(study: Study, file: Path, backbone: Backbone) -> tuple[int, Prompt] | None:
    """Return the trial whose prompt the file holds, and the prompt; None where it holds none."""
    number = study.user_attrs.get(_mark(file)) if file.is_file() else None
    return None if number is None else (number, Prompt.load(file, backbone))


def _mark(file: Path) -> str:
    return f"prompt {hashlib.sha256(file.read_bytes()).hexdigest()}"


def conclude(
    study: Study,
    runner: Trials,
    parts: Parts,
    about: Mapping[str, Any],
    target: Path | None,
    *,
    stopped: Interrupted | KeyboardInterrupt | None,
    report: Reporter,
) -> Searched:
    """Score and write the best prompt, and say how the search went."""
    best = best_of(study)
    if best is None:
        if stopped is not None:
            raise stopped
        why = next((t.reason for t in reversed(tried(study)) if t.reason), "none was begun")
        raise UserError(
            f"no trial came to its end ({why}); give more `minutes`, fewer rows or fewer `epochs`"
        )
    seed, shown = runner.training.seed, "the best so far"
    _say_chance(study, best, report)
    if runner.kept is None or runner.kept[0] != best.number:
        if stopped is None:
            report.line(f"the prompt of trial {best.number} is not at hand: it is tuned again")
        elif runner.kept is None:
            raise stopped
        else:
            shown = f"trial {best.number} is the best, but the prompt of trial {runner.kept[0]}"
            best = study.trials[runner.kept[0]]
    prompt = runner.prompt_of(best)
    held = again = None
    if stopped is None:
        again = _refitted(runner, parts, best, prompt, report) if runner.pace.again else None
        train = parts.folds[0][0]  # scored after it, so as to take none of its time
        held = evaluate(prompt, parts.held, train=train, seed=seed, name="held back", report=report)
        prompt = again or with_scores(prompt, "test", held)
    found = Searched(
        prompt,
        str(best.user_attrs.get(METRIC, "score")),
        Tried.of(best),
        tried(study),
        held,
        {"study": study.study_name, **about},
        importances(study, seed) if stopped is None else {},
    )
    if target is not None:
        prompt.save(target)
        if again is None:
            note_file(study, best.number, target)
        plain_values = json.dumps(found.to_dict(), indent=1, default=str) + "\n"
        write_whole(result_path(target), plain_values.encode())
        _write_page(found, target, report)
    if stopped is not None:
        ended = sum(each.state in ("complete", "pruned") for each in found.trials)
        written = "" if target is None else f"; {shown} is in {target}"
        raise Interrupted(
            f"stopped after {counted(ended, 'trial')}{written}", getattr(stopped, "signal", None)
        ) from None
    return found


def _say_chance(study: Study, best: FrozenTrial, report: Reporter) -> None:
    """Say why the trial of the highest score is not the best one, where that is so."""
    top = max(
        (each for each in study.get_trials(deepcopy=False) if each.state.name == "COMPLETE"),
        key=lambda each: each.value or 0.0,
    )
    if (top.value or 0.0) > (best.value or 0.0):
        report.line(
            f"trial {top.number} has the highest dev score ({top.value:.2f}), which may be chance "
            f"beside trial {best.number} ({best.value:.2f}), of the usual settings, which is kept"
        )


def _write_page(found: Searched, target: Path, report: Reporter) -> None:
    """Write the page of a search, where matplotlib is there to draw it."""
    try:
        drawn = page(found, target.stem)
    except UserError as error:
        report.line(f"no page is written: {error}")
        return
    write_whole(page_path(target), drawn.encode())


def _refitted(
    runner: Trials, parts: Parts, best: FrozenTrial, prompt: Prompt, report: Reporter
) -> Prompt | None:
    """Tune the best settings again on all rows; None where the time is up before it has learned.

    Where there is no time for the whole of the longest run, it goes on from the trial's prompt, if
    the method has a start. One that the time ends counts if it was as long as the trial, by the
    rows that both learned. The dev score that is kept is the one of the search.
    """
    settings, short = runner.last_settings(best), runner.pace.is_short()
    enough = best.user_attrs[SETTINGS][EPOCHS] * runner.part
    _, method, _ = runner.space.configured(settings, runner.task, runner.training)
    short = short and has_start(method)
    report.line(
        f"tuning the settings of trial {best.number} again on all {len(parts.every)} rows, "
        f"epochs {settings[EPOCHS]}" + (", from its prompt" if short else "")
    )
    ignore, clock = (lambda step, value: None), runner.clock
    judged = Judged(ignore, runner.pace.deadline, runner.passed, clock=clock)
    heard, start = Reporters([report, judged]), prompt if short else None
    try:
        again = runner.tune(settings, parts.every, parts.dev, heard, start=start)
    except Enough:
        again = None
    except (UserError, MemoryError, torch.OutOfMemoryError) as error:
        why = " ".join(str(error).split()) if isinstance(error, UserError) else "too little memory"
        report.line(f"it failed ({why}): the prompt is the one that was tuned in the search")
        return None
    learned = judged.share * settings[EPOCHS]
    if again is None or (judged.over and learned < enough):
        report.line("the time was up: the prompt is the one that was tuned in the search")
        return None
    if judged.over:
        report.line(f"the time was up after {learned:.1f} epochs, which the prompt has learned")
    dev = {best.user_attrs[METRIC]: best.value, "rows": runner.used.judged}
    return again.with_scores({"dev": dev})
