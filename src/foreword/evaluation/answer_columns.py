"""Rows with their answers beside them: every column stays as it is, and new ones follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from foreword.data.bad_rows import OnBad, refuse
from foreword.data.read import rename
from foreword.data.row import Row
from foreword.data.shapes import canonical
from foreword.errors import UserError
from foreword.evaluation.evaluation import Evaluation
from foreword.prompt.abstain import is_unsure
from foreword.prompt.answerer import Answerer
from foreword.tasks.base import Bound

Prediction = Mapping[str, Any]


def answer_rows(
    tuned: Answerer,
    rows: Sequence[Row],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = refuse,
    progress: Callable[[int], None] | None = None,
) -> list[Prediction | None]:
    """Answer rows as they were read; None for a row of which ``on_bad`` was given the error."""
    bound, usable = tuned.bound, []
    for number, row in enumerate(rows):
        try:
            usable.append((number, usable_row(row, bound, columns)))
        except UserError as error:
            on_bad(error)
    answers = tuned.answers([row for _, row in usable], progress=progress) if usable else []
    by_number = {number: answer for (number, _), answer in zip(usable, answers, strict=True)}
    return [by_number.get(number) for number in range(len(rows))]


def usable_row(row: Row, bound: Bound, columns: Mapping[str, str] | None = None) -> Row:
    """Return a row as it was read in the shape that is answered; raises UserError for a bad one."""
    renamed = rename(row, columns) if columns else row
    shaped = canonical([renamed], targets=False)[1]
    bound.check(shaped, answers=False)
    return shaped[0]


def with_answers(
    rows: Sequence[Row],
    predictions: Sequence[Prediction | None],
    bound: Bound,
    *,
    least: float | None = None,
    as_table: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return rows as they were read with their answers behind their fields.

    The new columns are called as the task calls its answer (``label``, ``score`` ...; a text is the
    ``answer``), and ``probability``. A name that a column of the rows has already gets
    ``predicted_`` in front: these are returned too, by the names that they would have. Rows without
    an answer, and those whose probability is below ``least``, have an empty one. For a table,
    lists become texts, and what is not asked for is left out.
    """
    answers = [answer_columns(bound, each, least, as_table=as_table) for each in predictions]
    names = list(dict.fromkeys(name for answer in answers for name in answer))
    taken = {name for row in rows for name in row.fields}
    called = {name: free_name(name, taken) for name in names}
    lines = [
        {**row.fields, **{called[name]: answer.get(name) for name in names}}
        for row, answer in zip(rows, answers, strict=True)
    ]
    return lines, {name: other for name, other in called.items() if name != other}


def wrong_rows(scores: Evaluation, bound: Bound, *, as_table: bool = False) -> list[dict[str, Any]]:
    """Return the rows that were answered wrongly, with ``gold``, ``answer`` and ``probability``.

    Numbers are not right or wrong: all rows are returned, those that are furthest off first. Where
    rows have a column of such a name, the new one is called as :func:`columns_of_errors` says.
    """
    called = columns_of_errors([each.row for each in scores.rows])
    wrong = scores.wrong
    if bound.task.fusion == "numbers":
        wrong = sorted(scores.rows, key=lambda each: -abs(each.answer - each.gold))
    lines = []
    for each in wrong:
        made = {"gold": each.gold, "answer": each.answer, "probability": each.probability}
        if each.probability is None:
            del made["probability"]
        made = {called[name]: _value(value, bound, as_table) for name, value in made.items()}
        lines.append({**each.row.fields, **made})
    return lines


def columns_of_errors(rows: Iterable[Row]) -> dict[str, str]:
    """Return what the new columns of :func:`wrong_rows` are called, by their usual names."""
    taken = {name for row in rows for name in row.fields}
    usual = {"gold": "right_answer", "answer": "predicted_answer", "probability": "probability"}
    return {n: free_name(other, taken) if n in taken else n for n, other in usual.items()}


def free_name(name: str, taken: Collection[str]) -> str:
    """Return a name for a new column: another one where a column has it already."""
    while name in taken:
        name = f"predicted_{name}"
    return name


def answer_columns(
    bound: Bound, prediction: Prediction | None, least: float | None, *, as_table: bool
) -> dict[str, Any]:
    """Return an answer by the names of new columns; empty where there is none."""
    if prediction is None:
        return {}
    probability = bound.probability(prediction)
    made = {"answer" if bound.answer == "text" else bound.answer: prediction[bound.answer]}
    if is_unsure(bound, prediction, least):
        made = dict.fromkeys(made)
    if probability is not None:
        made["probability"] = probability
    for name, value in prediction.items():
        nested = isinstance(value, list | Mapping)
        if name not in (bound.answer, "cut") and not (as_table and nested):
            made[name] = value
    return {name: _value(value, bound, as_table) for name, value in made.items()}


def _value(value: Any, bound: Bound, as_table: bool) -> Any:
    """Return what an answer says as it is written: numbers rounded, for a table lists as texts."""
    if as_table and isinstance(value, list):
        return (" " if bound.answer == "tags" else ", ").join(map(str, value))
    return _rounded(value, 4 if as_table else 6)


def _rounded(value: Any, digits: int) -> Any:
    """Round a number, and those in lists and objects too."""
    if isinstance(value, Mapping):
        return {key: _rounded(each, digits) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each, digits) for each in value]
    return round(value, digits) if isinstance(value, float) else value
