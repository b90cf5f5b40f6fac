"""How much new rows improve the score: the same method tuned without and with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from foreword.config.values import from_plain
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.evaluation.evaluation import Evaluation
from foreword.methods.base import Method
from foreword.methods.parts.several import rebuild_method
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.terminal import usual_reporter
from foreword.training.settings import Training
from foreword.training.tune import tune_prompt


@dataclass(frozen=True)
class Gain:
    """The scores of a method on the ``scored`` rows, tuned without and with new rows."""

    scored: Literal["dev", "test"]
    without_new: Evaluation
    with_new: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them."""
        scores = {"without": dict(self.without_new), "with": dict(self.with_new)}
        return {"scored": self.scored, **scores}


def how_tuned(prompt: Prompt) -> tuple[Method, Training]:
    """Return a prompt's method and training; raises UserError where it does not say all of them."""
    if "training" not in prompt.method or "source" in prompt.method:
        raise UserError(
            "the prompt does not say all of how it was trained, by which it would be tuned again; "
            "give one made by train alone"
        )
    training = from_plain(Training, prompt.method["training"], "the prompt's training")
    return rebuild_method(prompt.method, "the prompt's method"), training


def gain(
    prompt: Prompt,
    train: Rows,
    new: Rows,
    dev: Rows,
    test: Rows | None,
    *,
    report: Reporter | None = None,
) -> Gain:
    """Tune the prompt's method without and with the new rows, and return both scores.

    Each run chooses its best state on ``dev`` and is scored on ``test``, or on ``dev`` without one.
    """
    report = usual_reporter() if report is None else report
    method, training = how_tuned(prompt)
    backbone = prompt.bound.backbone
    pair, scores = prompt.bound.pair, []
    old = as_rows(train, fields=pair)
    for name, rows in (("without", old), ("with", [*old, *as_rows(new, fields=pair)])):
        report.line(f"{name} the new rows: {len(rows)} to train on")
        made = tune_prompt(
            backbone,
            prompt.task,
            method,
            rows,
            dev,
            training=replace(training, refit="off"),  # which would learn the dev rows
            report=report,
        )
        asked = dev if test is None else test
        scores.append(evaluate(made, asked, train=rows, report=report))
    return Gain("dev" if test is None else "test", *scores)
