"""Evaluation: a prompt's scores on rows, beside those of the same model without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foreword.config.values import plain
from foreword.data.duplicates import marked, marks, with_marks
from foreword.data.folder import TEST
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.evaluation.abstain import FIT, abstain
from foreword.evaluation.evaluation import Answered, Evaluation, without_tables
from foreword.grammar import counted
from foreword.injection import NOTHING, Injection
from foreword.prompt.abstain import check_one_label, least_of
from foreword.prompt.answerer import Answerer
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT, Reporter
from foreword.tasks.base import Bound
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.labels.probe import LinearProbe
from foreword.tasks.registry import name_of
from foreword.terminal import usual_reporter


def evaluate(
    prompt: Answerer,
    data: Rows,
    *,
    baselines: bool = False,
    train: Rows | None = None,
    unknown: Rows | None = None,
    min_probability: float | str | None = None,
    seed: int = 0,
    name: str = "prompt",
    report: Reporter | None = None,
) -> Evaluation:
    """Score a prompt, or an ensemble, on rows with the task's metrics and 95% bootstrap intervals.

    With ``baselines`` the frozen model is scored on the same rows too: ``zero-shot`` with the
    template alone (virtual tokens left out), ``demonstrations`` with rows that the prompt
    remembers from its training data as plain text in front, and, for tasks of labels or numbers,
    ``probe``: scikit-learn's logistic (or ridge) regression on its states. That one learns from the
    rows of ``train``, of these from those that the prompt was tuned on, where its file tells.

    With ``min_probability``, or ``unknown`` rows that belong to no label, ``abstaining`` says what
    is answered from that probability on (abstain.py): a number, "auto" (the one that the prompt
    keeps) or "fit" (the one that 95% of the right answers reach); by default the first that is
    there of the last two.

    ``cut`` counts the rows that were too long and lost text. ``in_train`` counts those whose text
    is among the rows of ``train`` or, without, among those that the prompt was tuned on, where its
    file tells. ``name`` is what ``report`` counts its rows as; by default they are counted where
    people see it.
    """
    report = usual_reporter() if report is None else report
    if not hasattr(prompt, "answers"):
        kind = type(prompt).__name__
        raise UserError(f"`prompt` is of type {kind}; give what tune or Prompt.load gives")
    bound = prompt.bound
    if min_probability is not None or unknown is not None:  # what is wrong is said before answers
        check_one_label(bound, "unknown" if min_probability is None else "min_probability")
    if min_probability not in (None, FIT):
        least_of(prompt, min_probability)
    rows = as_rows(data, split=TEST, fields=bound.pair, report=report)
    bound.check(rows, answers=True)
    learned = None if train is None else as_rows(train, fields=bound.pair)
    with report.bar(name, len(rows)) as progress:
        found = compare_answers(bound, rows, prompt.answers(rows, progress=progress), seed)
    result = dict(found)
    known = prompt.data.get("marks") if learned is None else marks(learned, bound.fields)
    if known is not None:
        result["in_train"] = marked(rows, bound.fields, known)
    if unknown is not None or min_probability is not None:
        result["abstaining"] = abstain(
            prompt, found.rows, min_probability, unknown, seed=seed, report=report
        )
    if not baselines:
        return replace(found, plain=result)
    beside = _baselines(prompt, rows, learned, seed, report)
    found = replace(found, baselines=beside)
    plain_baselines = result["baselines"] = {n: dict(each) for n, each in beside.items()}
    for other, values in plain_baselines.items():
        if (lead := found.lead(other, seed)) is not None:
            values["lead"] = {"value": round(lead.value, 2), "interval": lead.bounds()}
    return replace(found, plain=result)


def _baselines(
    prompt: Answerer, rows: Sequence[Row], train: Sequence[Row] | None, seed: int, report: Reporter
) -> dict[str, Evaluation]:
    """Score the frozen model on rows: alone, with demonstrations, and under a linear model."""
    bound = prompt.bound
    frozen = bound.zero_shot()

    def bare(name: str, before: str = "") -> Evaluation:
        with report.bar(name, len(rows)) as progress:
            return score(frozen, rows, NOTHING, before=before, seed=seed, progress=progress)

    has_own = bound.backbone.own_head is not None
    if has_own and isinstance(frozen, LabelExamples) and frozen.own_head is None:
        report.line(
            f"zero-shot goes by the labels' names: {bound.backbone.name} has a trained head of its "
            "own, and that is for other labels"
        )
    found = {"zero-shot": bare("zero-shot")}
    texts = prompt.data.get("demonstrations") or []
    if texts and bound.backbone.is_encoder:
        report.line("no baseline with demonstrations in context: an encoder reads none")
    elif texts:
        shown = bare(f"{len(texts)} demonstrations", "".join(texts))
        found["demonstrations"] = replace(shown, plain={**shown.plain, "shots": len(texts)})
    elif prompt.data.get("no_texts"):
        report.line(
            "no baseline with demonstrations in context: the prompt's file was written without "
            "texts of its rows (`no_texts`)"
        )
    if not isinstance(bound, LabelExamples):
        return found
    if train is None:
        report.line(
            "no probe (a logistic regression on the frozen model's states) among the baselines: "
            "give the rows that the prompt was tuned on with `train`"
        )
        return found
    return {**found, "probe": probe(bound, _rows_of_run(prompt, train, report), rows, seed, report)}


def _rows_of_run(prompt: Answerer, train: Sequence[Row], report: Reporter) -> Sequence[Row]:
    """Return those of the rows that a prompt was tuned on, or all where that cannot be told."""
    known = prompt.data.get("marks")
    own = train if known is None else with_marks(train, prompt.bound.fields, known)
    tuned = prompt.data.get("train", {}).get("rows")
    used = own or train
    if tuned is not None and len(used) != tuned:
        report.line(
            f"the probe learns from {counted(len(used), 'row')}; the prompt was tuned on {tuned}"
        )
    return used


def probe(
    bound: LabelExamples,
    train: Sequence[Row],
    rows: Sequence[Row],
    seed: int = 0,
    report: Reporter = SILENT,
) -> Evaluation:
    """Fit a linear model on the frozen model's states of training rows, and score it on rows."""
    with report.bar("probe", len(train) + len(rows)) as progress:
        fitted = LinearProbe.fit(bound, train, progress)
        found = compare_answers(bound, rows, fitted.predict(rows, progress), seed)
    about = {"model": fitted.name, "parameters": fitted.parameters, "train_rows": len(train)}
    return replace(found, plain={**found.plain, **about})


@dataclass(frozen=True)
class Windowed:
    """Scores of a prompt that reads the first ``window`` tokens of each field; None is all."""

    window: int | None
    scores: Evaluation


@dataclass(frozen=True)
class WindowCurve:
    """The score ``metric`` of the same number of ``rows`` for several windows, in their order."""

    metric: str
    rows: int
    points: tuple[Windowed, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them, without tables."""
        curve = [{"window": each.window, **each.scores.without_tables()} for each in self.points]
        return {"metric": self.metric, "rows": self.rows, "curve": curve}


def over_windows(
    prompt: Prompt,
    data: Rows,
    windows: Sequence[int | None],
    *,
    seed: int = 0,
    report: Reporter = SILENT,
) -> WindowCurve:
    """Score a prompt that reads only the first tokens of each field, for several numbers of them.

    None is a window without end. Raises UserError for a task that reads whole fields.
    """
    rows = as_rows(data, split=TEST, fields=prompt.bound.pair)
    task: Any = prompt.task  # a frozen dataclass, as all tasks are
    if "input_window" not in plain(task):
        raise UserError(f"a task of kind {name_of(task)} reads whole fields; leave out `windows`")
    curve = []
    for window in windows:
        name = f"first {window}" if window else "all"
        within = replace(prompt, task=replace(task, input_window=window))
        found = evaluate(within, rows, seed=seed, name=name, report=report)
        curve.append(Windowed(window, found))
    return WindowCurve(prompt.bound.headline, len(rows), tuple(curve))


def score(
    bound: Bound,
    rows: Sequence[Row],
    injection: Injection,
    *,
    before: str = "",
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Answer rows, with the text ``before`` in front, and score the answers."""
    found = bound.predict(rows, injection, before=before, progress=progress)
    return compare_answers(bound, rows, found, seed)


def compare_answers(
    bound: Bound, rows: Sequence[Row], answers: Sequence[Mapping[str, Any]], seed: int
) -> Evaluation:
    """Score answers to the rows with the task's metrics."""
    cut = sum(bool(answer["cut"]) for answer in answers)
    plain = {**bound.score(rows, answers, seed), "cut": cut}
    answered = [_answered(bound, *pair) for pair in zip(rows, answers, strict=True)]
    return Evaluation(bound.headline, plain, answered)


def _answered(bound: Bound, row: Row, prediction: Mapping[str, Any]) -> Answered:
    answer = prediction[bound.answer]
    return Answered(
        text=bound.text_of(row),
        gold=bound.gold_answer(row),
        answer=answer,
        probability=bound.probability(prediction),
        right=bound.is_right(row, answer),
        row=row,
        prediction=prediction,
    )


def with_scores(prompt: Prompt, name: str, scores: Evaluation) -> Prompt:
    """Return the prompt with the scores stored under a name, without their tables."""
    kept = scores.without_tables()
    for base, values in scores.baselines.items():
        kept[base] = without_tables(values)
    return prompt.with_scores({**prompt.scores, name: kept})
