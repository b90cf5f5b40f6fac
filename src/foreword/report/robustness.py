"""How far does it hold? The same rows said otherwise, and rows from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foreword.data.row import Row
from foreword.data.sample import first
from foreword.errors import UserError
from foreword.evaluation.abstain import abstain
from foreword.evaluation.evaluation import Evaluation
from foreword.metrics.resample import Floats
from foreword.report.left_out import LeftOut
from foreword.report.subject import Subject
from foreword.report.variants import (
    CHANGES,
    RULES,
    changed_rows,
    is_english,
    other_templates,
    reworded,
)
from foreword.tasks.base import Bound
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.labels.probe import frozen_states

ROWS, ROWS_OF_TEXTS = 64, 8
"""Rows that are said otherwise, and as many where each answer is written."""

STATES = 100
"""Rows of each set whose hidden states are compared."""


@dataclass(frozen=True)
class Variant:
    """Rows said otherwise: the score, and the share of answers that are others, in percent.

    ``altered`` is how many of the rows read otherwise at all, ``rule`` how they were altered, and
    ``before`` and ``after`` a text that was.
    """

    name: str
    score: float
    low: float
    high: float
    changed: float
    altered: int
    rule: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Robustness:
    """A prompt on some of its rows as they are, and said otherwise."""

    metric: str
    rows: int
    score: float
    low: float
    high: float
    variants: Sequence[Variant]
    left_out: Sequence[LeftOut]


def measure_robustness(subject: Subject) -> Robustness:
    """Score a prompt on rows that are reworded, misspelled, shortened, and in other templates."""
    bound = subject.bound
    most = ROWS_OF_TEXTS if bound.answer == "text" else ROWS
    rows = subject.rows
    rows = list(rows) if len(rows) <= most else first(rows, most, subject.seed)
    plain = subject.evaluate(rows, "as they are")
    found, left_out = [], []
    main = bound.pair[0]  # such as the text of a relation, whose head and tail stay
    fields = (main,) if main in bound.fields else bound.fields
    english = is_english([bound.text_of(row) for row in rows])
    for name, change in CHANGES.items():
        if change is reworded and not english:
            left_out.append(LeftOut("not reworded: the rows are not in English"))
            continue
        others = [
            new if _is_usable(bound, new) else old
            for old, new in zip(rows, changed_rows(rows, fields, change, subject.seed), strict=True)
        ]
        altered = sum(a.fields != b.fields for a, b in zip(rows, others, strict=True))
        if not altered:
            left_out.append(LeftOut(f"not {name}: what is read is no text that may change"))
            continue
        one = next(n for n, row in enumerate(rows) if others[n].fields != row.fields)
        found.append(
            replace(
                _variant(name, plain, subject.evaluate(others, name), altered),
                rule=RULES[name],
                before=bound.text_of(rows[one]),
                after=bound.text_of(others[one]),
            )
        )
    templates = other_templates(subject.prompt.task.template or "")
    if not templates:
        left_out.append(LeftOut("no other wordings of the template: it has no words of its own"))
    for name, template in templates.items():
        task: Any = subject.prompt.task
        other = replace(subject.prompt, task=replace(task, template=template))
        try:
            scored = subject.evaluate(rows, name, other.bound)
        except UserError as error:
            left_out.append(LeftOut(f"not with the {name}: {error}"))
            continue
        said = replace(_variant(name, plain, scored, len(rows)), rule="the template's own text")
        found.append(replace(said, before=task.template, after=template))
    low, high = plain.interval
    return Robustness(plain.headline, len(rows), plain.score, low, high, found, left_out)


def _is_usable(bound: Bound, row: Row) -> bool:
    """Whether a task takes a row as it now reads."""
    try:
        bound.check([row], answers=True)
    except UserError:
        return False
    return True


def _variant(name: str, plain: Evaluation, found: Evaluation, altered: int) -> Variant:
    pairs = zip(plain.rows, found.rows, strict=True)
    changed = 100 * sum(a.answer != b.answer for a, b in pairs) / len(found.rows)
    low, high = found.interval
    return Variant(name, found.score, low, high, changed, altered)


# Rows from elsewhere -------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """A set of rows: score, calibration error, and the share that is left unanswered."""

    name: str
    rows: int
    score: float
    low: float
    high: float
    calibration_error: float | None
    abstained: float | None


@dataclass(frozen=True)
class Distance:
    """How far apart the untouched model's hidden states of two sets of rows are.

    ``means`` is the distance of the two means in standard deviations of the rows around theirs,
    ``within`` the same of two halves of the first set. ``told_apart`` is the AUROC, in percent, at
    which a linear model tells which set a row is of: 50 where it cannot.
    """

    means: float
    within: float
    told_apart: float


@dataclass(frozen=True)
class Shifted:
    """A prompt's own rows beside rows from elsewhere."""

    metric: str
    own: Side
    other: Side
    least: float | None
    distance: Distance | LeftOut


def measure_shifted(subject: Subject, rows: Sequence[Row], name: str) -> Shifted:
    """Score a prompt on rows from elsewhere, or from later, beside its own rows.

    Raises UserError for rows that it cannot be scored on.
    """
    subject.bound.check(rows, answers=True)
    found = subject.evaluate(rows, name)
    least = None
    if subject.bound.answer == "label":
        own = subject.tuned.rows
        least = float(
            abstain(subject.prompt, own, None, None, seed=subject.seed, report=subject.report)[
                "min_probability"
            ]
        )
    return Shifted(
        subject.tuned.headline,
        _side(subject.data, subject.tuned, least),
        _side(name, found, least),
        least,
        _distance(subject, rows),
    )


def _side(name: str, found: Evaluation, least: float | None) -> Side:
    low, high = found.interval
    unsure = None
    if least is not None:
        below = [(row.probability or 0.0) < least for row in found.rows]
        unsure = 100 * sum(below) / len(below)
    return Side(name, len(found.rows), found.score, low, high, found.plain.get("ece"), unsure)


def _distance(subject: Subject, rows: Sequence[Row]) -> Distance | LeftOut:
    bound = subject.bound
    if not isinstance(bound, LabelExamples):
        return LeftOut("no distance of hidden states: answers are no labels, read at one place")
    sets = []
    for own in (subject.rows, rows):
        chosen = list(own) if len(own) <= STATES else first(own, STATES, subject.seed)
        if len(chosen) < 4:
            return LeftOut("no distance of hidden states: it takes four rows of each set")
        with subject.report.bar("hidden states", len(chosen)) as progress:
            states = frozen_states(bound, chosen, progress)[1]
        sets.append(np.stack([each.mean(0) for each in states]).astype(np.float64))
    return state_distance(sets[0], sets[1], subject.seed)


def state_distance(first_set: Floats, second_set: Floats, seed: int = 0) -> Distance:
    """Compare two sets of states, (N, width) and (M, width)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = np.random.default_rng(seed).permutation(len(first_set))
    half = len(first_set) // 2
    within = _means(first_set[order[:half]], first_set[order[half:]])
    states = np.concatenate([first_set, second_set])
    of = np.r_[np.zeros(len(first_set)), np.ones(len(second_set))]
    folds = StratifiedKFold(
        min(5, len(first_set), len(second_set)), shuffle=True, random_state=seed
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    chances = cross_val_predict(model, states, of, cv=folds, method="predict_proba")[:, 1]
    auroc = 100 * float(roc_auc_score(of, chances))
    return Distance(_means(first_set, second_set), within, auroc)


def _means(one: Floats, two: Floats) -> float:
    around = [((each - each.mean(0)) ** 2).sum(1).mean() for each in (one, two)]
    apart = float(((one.mean(0) - two.mean(0)) ** 2).sum())
    return float(np.sqrt(apart / max(1e-12, float(np.mean(around)))))
