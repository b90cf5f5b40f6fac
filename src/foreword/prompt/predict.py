"""Predicting: texts, rows and tables to answers, in the shape that they were given in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows, records_of, shaped_like
from foreword.data.values import plain
from foreword.errors import UserError
from foreword.prompt.abstain import is_unsure, least_of
from foreword.prompt.answerer import Answerer
from foreword.reporter import Reporter
from foreword.tasks.base import Bound
from foreword.terminal import usual_reporter

AT_ONCE = 256
"""Rows of an iterator that are read and answered together."""


def predict(
    tuned: Answerer,
    inputs: str | Mapping[str, Any] | Rows,
    *,
    probabilities: bool = False,
    min_probability: float | str | None = None,
    report: Reporter | None = None,
    **decoding: Any,
) -> Any:
    """Answer one text or row with one answer, and many with a list: labels, texts or numbers.

    A string is always a text, for a template of one field, and a ``Path`` a file of rows. A pandas
    or polars DataFrame, or a Series of texts, gives a Series, of pandas with the same index. An
    iterator, such as a generator of texts or rows, gives an iterator of answers, for which some
    hundred rows are read at a time. With ``probabilities`` an answer is the probability of every
    label, by its name, and a DataFrame gives a DataFrame. With ``min_probability`` an answer that
    is less sure is None; "auto" asks for the probability that the prompt keeps. ``decoding`` are
    settings of :class:`Decoding` for tasks that write texts, such as ``max_new_tokens=20``.
    ``report`` counts the rows; by default they are counted where people see it.

    Raises UserError for what is none of these, for rows that lack a field, and where answers have
    no probabilities.
    """
    answerer = tuned.decoding(**decoding) if decoding else tuned
    bound, least = answerer.bound, least_of(answerer, min_probability)
    if least is not None and probabilities:
        raise UserError("`min_probability` leaves answers out, not probabilities; give one of both")

    def value(prediction: Mapping[str, Any]) -> Any:
        unsure = is_unsure(bound, prediction, least)
        return None if unsure else _value(prediction, bound, probabilities)

    if isinstance(inputs, str | Mapping | Row):
        rows = rows_of([inputs], bound, "input {}" if isinstance(inputs, Row) else "input")
        return value(answerer.answers(rows)[0])
    if isinstance(inputs, Iterator):
        return _lazily(answerer, inputs, value)
    rows = rows_of(inputs, bound)
    with (usual_reporter() if report is None else report).bar("predicting", len(rows)) as progress:
        found = answerer.answers(rows, progress=progress)
    values = [value(each) for each in found]
    columns = (values[0] if values else getattr(bound, "labels", ())) if probabilities else None
    return shaped_like(inputs, values, bound.answer, columns)


def _lazily(
    answerer: Answerer, inputs: Iterator[Any], value: Callable[[Mapping[str, Any]], Any]
) -> Iterator[Any]:
    """Yield the answers to rows that are read as they are wanted."""
    done = 0
    while part := list(islice(inputs, AT_ONCE)):
        rows = rows_of(part, answerer.bound, start=done + 1)
        for each in answerer.answers(rows):
            yield value(each)
        done += len(part)


def _value(prediction: Mapping[str, Any], bound: Bound, probabilities: bool) -> Any:
    if not probabilities:
        return prediction[bound.answer]
    if "probabilities" not in prediction:
        kind = type(bound.task).__name__
        raise UserError(f"answers of {kind} have no probabilities; leave `probabilities` out")
    return prediction["probabilities"]


def rows_of(inputs: Rows, bound: Bound, name: str = "input {}", start: int = 1) -> list[Row]:
    """Return rows of texts, or of whatever holds rows with the template's fields.

    A text to a prompt for conversations is what the user says. ``name`` is what a row that comes
    from no file is called, with its number at {}, which counts from ``start``.
    """
    if isinstance(inputs, Path):
        return as_rows(inputs, targets=False)
    rows = []
    for number, given in enumerate(records_of(inputs, bound.pair), start):
        where = name.format(number)
        given = plain(given)
        if isinstance(given, str | None) or given != given:  # a text, None or NaN
            given = _fields_of(given, where, bound)
        rows.append(Row(given, where) if isinstance(given, Mapping) else given)
    return as_rows(rows, targets=False, name="input")


def _fields_of(text: str | float | None, where: str, bound: Bound) -> dict[str, Any]:
    """Return the template's one field with a text, or with a turn of the user."""
    fields = bound.fields
    if len(fields) != 1:
        raise UserError(
            f"{where} is a text, but the template has {len(fields)} fields "
            f"({', '.join(fields)}); give rows with these fields"
        )
    return {fields[0]: [{"role": "user", "content": text}] if fields == ("messages",) else text}
