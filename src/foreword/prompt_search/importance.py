"""How much each setting mattered: fANOVA over the trials (Hutter et al. 2014), by Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from foreword.prompt_search.tried import is_repeated

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

LEAST = 4
"""Complete trials below which nothing is said."""


def importances(study: Study, seed: int) -> Mapping[str, float]:
    """Return the share of the variance of scores that each parameter explains.

    Parameters that all complete trials have share 1, and those of a method share 1 among its
    trials, with the others. What few trials have, or all have alike, is left out.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    ended = [t for t in study.trials if t.state.name == "COMPLETE" and not is_repeated(t)]
    found: dict[str, float] = {}
    groups = [{name for name in t.params if "." not in name} for t in ended]
    shared = set.intersection(*groups) if groups else set()
    methods = {name.split(".")[0] for t in ended for name in t.params if "." in name}
    for method in (None, *sorted(methods)):
        own = [t for t in ended if method is None or any(_is_of(n, method) for n in t.params)]
        names = [n for n in own[0].params if n in shared or _is_of(n, method)] if own else []
        asked = [
            name
            for name in names
            if all(name in t.params for t in own) and len({str(t.params[name]) for t in own}) > 1
        ]
        values = {t.value for t in own}
        if len(own) < LEAST or not asked or len(values) < 2:
            continue
        part = optuna.create_study(direction="maximize")
        part.add_trials([_only(t, asked) for t in own])
        evaluator = FanovaImportanceEvaluator(seed=seed % 2**32)
        for name, value in get_param_importances(part, evaluator=evaluator).items():
            found.setdefault(name, float(value))
    return found


def _is_of(name: str, method: str | None) -> bool:
    return method is not None and name.startswith(f"{method}.")


def _only(trial: FrozenTrial, names: list[str]) -> FrozenTrial:
    """Return a copy of a trial with some of its parameters."""
    from optuna.trial import create_trial

    return create_trial(
        params={name: trial.params[name] for name in names},
        distributions={name: trial.distributions[name] for name in names},
        value=trial.value,
    )
