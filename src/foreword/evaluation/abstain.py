"""Abstaining: from which probability on answers are given, and what becomes of unknown rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.data.folder import TEST
from foreword.data.rows import Rows, as_rows
from foreword.evaluation.evaluation import Answered
from foreword.metrics.unknown import abstaining, apart, fit_threshold
from foreword.prompt.abstain import AUTO, kept_by, least_of
from foreword.prompt.answerer import Answerer
from foreword.reporter import Reporter

FIT = "fit"
"""The probability that is fitted on the rows that are scored."""


def abstain(
    prompt: Answerer,
    answered: Sequence[Answered],
    least: float | str | None,
    unknown: Rows | None,
    *,
    seed: int,
    report: Reporter,
) -> Mapping[str, Any]:
    """Score a prompt that leaves answers blank below a probability, with 95% intervals.

    The answer has ``min_probability`` and whether it is ``fitted`` here, ``coverage`` and
    ``answered_accuracy``, and of ``unknown`` rows ``unknown_rows``, ``auroc`` and
    ``false_acceptance``. The answers must be one label a row.
    """
    bound = prompt.bound
    known = [_certain(row.probability) for row in answered]
    right = [bool(row.right) for row in answered]
    fitted = least == FIT or (least is None and kept_by(prompt) is None)
    asked = AUTO if least is None else least
    limit = fit_threshold(known, right) if fitted else _certain(least_of(prompt, asked))
    parts = [abstaining(known, right, limit, seed=seed)]
    told: dict[str, Any] = {"min_probability": limit, "fitted": fitted}
    if unknown is not None:
        rows = as_rows(unknown, split=TEST, targets=False, fields=bound.pair)
        bound.check(rows, answers=False)
        with report.bar("unknown", len(rows)) as progress:
            answers = prompt.answers(rows, progress=progress)
        others = [_certain(bound.probability(answer)) for answer in answers]
        parts.append(apart(known, others, limit, seed=seed))
        told["unknown_rows"] = len(rows)
    bounds = {name: each for part in parts for name, each in part["intervals"].items()}
    values = {name: value for part in parts for name, value in part.items()}
    return {**told, **values, "intervals": bounds}


def _certain(probability: float | None) -> float:
    assert probability is not None  # an answer of one label has one
    return probability
