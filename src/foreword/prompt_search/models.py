"""Base models of a search: a first look at each, before anything is tuned on one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.data.sample import hold_out, stratified
from foreword.errors import UserError
from foreword.evaluation.request_time import time_in_turn
from foreword.explanation.judge import Judge
from foreword.injection import NOTHING
from foreword.reporter import Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.labels.probe import LinearProbe

ROWS = 64
"""Training rows by which models are looked at; half of them fit the linear probe."""

TIMED = 3
"""Rows that are answered one at a time."""


@dataclass(frozen=True)
class Look:
    """What an untouched model scores on training rows.

    ``zero_shot`` is the dev score of the model alone, and ``probe``, of tasks with labels, the
    right answers of 100 of a linear model on its states, which learned from other rows. ``loss`` is
    the mean of a row in nats. ``megabytes`` are those of its weights, ``milliseconds`` of a
    request. ``seconds`` are those of the look, once the model is open. ``reason`` says why a model
    is left out.
    """

    model: str
    zero_shot: float | None = None
    probe: float | None = None
    loss: float | None = None
    megabytes: float | None = None
    milliseconds: float | None = None
    seconds: float = 0.0
    reason: str | None = None

    @property
    def promise(self) -> float:
        """By what models are ordered, higher is better: the better score, or minus the loss.

        The loss is that of whole rows, since models have tokens of their own.
        """
        if self.probe is not None:
            return max(self.probe, self.zero_shot or 0.0)
        return -float("inf") if self.loss is None else -self.loss


def look_at(
    models: Sequence[str],
    load: Callable[[str], Backbone],
    task: Task,
    rows: Sequence[Row],
    seed: int,
    report: Reporter,
) -> list[Look]:
    """Look at each model; the best one comes first, those that are left out last.

    ``rows`` are some that trials are tuned on: what is held back chooses no model either.

    Raises UserError where all are left out.
    """
    found = []
    for name in dict.fromkeys(models):
        try:
            found.append(_look(name, load(name), task, rows, seed))
        except UserError as error:
            found.append(Look(name, reason=" ".join(str(error).split())))
            report.line(f"{name} is left out: {found[-1].reason}")
    usable = [each for each in found if each.reason is None]
    if not usable:
        why = "; ".join(f"{each.model}: {each.reason}" for each in found)
        raise UserError(f"none of the models can be used: {why}")
    usable.sort(key=lambda each: -each.promise)
    return [*usable, *(each for each in found if each.reason is not None)]


def _look(name: str, backbone: Backbone, task: Task, rows: Sequence[Row], seed: int) -> Look:
    began = time.monotonic()
    whole = task.complete(rows, backbone)
    whole = whole.fill_from_rows(backbone, rows, seed)
    bound = whole.bind(backbone)
    bound.check(rows, answers=True)
    chosen = [rows[n] for n in stratified([bound.class_of(row) for row in rows], ROWS, seed)]
    fitted, scored = hold_out(chosen, 0.5, seed, by=whole.class_field)
    judge = Judge.of(bound.zero_shot(), scored)
    measured = judge.measure(name)
    units = sum(bound.units(item) for item in judge.items)
    bare = bound.zero_shot()
    (milliseconds,) = time_in_turn(
        [lambda row: bare.predict([row], NOTHING)], scored[:TIMED], lambda rows: None
    )
    weights = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    return Look(
        name,
        zero_shot=measured.score,
        probe=_probe(bound, fitted, scored),
        loss=measured.loss * units / len(scored),
        megabytes=weights / 1e6,
        milliseconds=milliseconds,
        seconds=time.monotonic() - began,
    )


def _probe(bound: Bound, fitted: Sequence[Row], scored: Sequence[Row]) -> float | None:
    """Return the share of rows, of 100, that a linear model of the states answers rightly."""
    if not isinstance(bound, LabelExamples):
        return None
    try:
        answers = LinearProbe.fit(bound, fitted).predict(scored)
    except UserError:  # such as rows of one label
        return None
    right = [bound.is_right(row, a[bound.answer]) for row, a in zip(scored, answers, strict=True)]
    known = [each for each in right if each is not None]
    return 100 * sum(known) / len(known) if known else None
