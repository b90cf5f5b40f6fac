"""The outcome: the best prompt is scored on the rows held back, and written with its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.files import write_whole
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.parts import Parts
from foreword.prompt_search.searched import Searched
from foreword.prompt_search.trial import METRIC, SETTINGS, Trials, Tried, best_of
from foreword.reporter import Reporter
from foreword.training.interrupt import Interrupted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def study_path(out: Path) -> Path:
    """Return the journal of the study whose best prompt is written to ``out``."""
    return out.with_suffix(".study.jsonl")


def result_path(out: Path) -> Path:
    """Return the file that says how the search of a prompt went."""
    return out.with_suffix(".search.json")


def conclude(
    study: Study,
    runner: Trials,
    parts: Parts,
    about: Mapping[str, Any],
    target: Path | None,
    *,
    refit: bool,
    stopped: Interrupted | KeyboardInterrupt | None,
    report: Reporter,
) -> Searched:
    """Score and write the best prompt, and say how the search went."""
    best = best_of(study)
    if best is None:
        if stopped is not None:
            raise stopped
        tried = [Tried.of(each) for each in study.trials]
        why = next((each.reason for each in reversed(tried) if each.reason), "none was begun")
        raise UserError(
            f"no trial came to its end ({why}); give more `minutes`, fewer rows or fewer `epochs`"
        )
    seed = runner.training.seed
    if runner.kept is None or runner.kept[0] != best.number:
        if stopped is not None and runner.kept is None:
            raise stopped
        if stopped is None:
            report.line(f"trial {best.number} ran elsewhere: its prompt is tuned again")
    prompt = runner.kept[1] if stopped and runner.kept else runner.prompt_of(best)
    held = None
    if stopped is None:
        train = parts.folds[0][0]
        held = evaluate(prompt, parts.held, train=train, seed=seed, name="held back", report=report)
        prompt = with_scores(prompt, "test", held)
        if refit:
            prompt = _refitted(runner, parts, best, report)
    found = Searched(
        prompt,
        str(best.user_attrs.get(METRIC, "score")),
        Tried.of(best),
        [Tried.of(each) for each in study.trials if each.state.name != "WAITING"],
        held,
        {"study": study.study_name, **about},
    )
    if target is not None:
        prompt.save(target)
        plain_values = json.dumps(found.to_dict(), indent=1, default=str) + "\n"
        write_whole(result_path(target), plain_values.encode())
    if stopped is not None:
        ended = sum(each.state in ("complete", "pruned") for each in found.trials)
        written = "" if target is None else f"; the best so far is in {target}"
        raise Interrupted(
            f"stopped after {ended} trials{written}", getattr(stopped, "signal", None)
        ) from None
    return found


def _refitted(runner: Trials, parts: Parts, best: FrozenTrial, report: Reporter) -> Prompt:
    """Tune the best settings again on all rows; its dev score is the one they had in the search."""
    report.line(f"tuning the settings of trial {best.number} again on all {len(parts.every)} rows")
    prompt = runner.tune(best.user_attrs[SETTINGS], parts.every, parts.dev or parts.every, report)
    judged = sum(len(dev) for _, dev in parts.folds)
    return prompt.with_scores({"dev": {best.user_attrs[METRIC]: best.value, "rows": judged}})
