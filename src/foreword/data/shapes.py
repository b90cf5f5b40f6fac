"""Detect the field's usual shapes of rows, and bring each to one canonical form.

============================  ==========================================================
shape (fields of the row)     becomes
============================  ==========================================================
`text,label`                  itself
`text_a,text_b,label`         itself
`prompt,completion`           itself; `references`, where present, is a list of texts;
                              `messages`, where both are lists of turns (TRL)
`instruction,input,output`    `prompt`, `completion` (Alpaca; `input` may be absent)
`messages`                    itself: `[{"role": ..., "content": ...}, ...]`
`conversations`               `messages` (ShareGPT: `[{"from": ..., "value": ...}]`)
`fields` (none of the above)  itself: a template may use any field
============================  ==========================================================

A column that a row has already, such as a `prompt` beside `instruction`, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from foreword.data.bad_rows import OnBad, convert, refuse
from foreword.data.conversations import conversation, is_turns
from foreword.data.lists import listed
from foreword.data.row import Row, kind
from foreword.data.text_fields import check_text
from foreword.errors import UserError, nearest

RELATION = ("text", "head", "tail")
OF_TASKS = (RELATION, ("context", "question"), ("history",), ("tokens",))
"""Fields that tasks read of rows of none of these shapes, or besides them."""

TARGETS = ("label", "labels", "tags", "completion", "output", "references", "answer", "answers")
"""Fields that hold answers."""

NUMBERS = ("id", "idx", "index", "")
"""Fields that number rows; a table of pandas has its index under no name."""


@dataclass(frozen=True)
class _Shape:
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    convert: Callable[[Row, bool], Mapping[str, Any]]  # (row, must it hold a target?) -> fields
    optional: tuple[str, ...] = ()  # further inputs, which may be absent or empty

    @property
    def read(self) -> tuple[str, ...]:
        return self.inputs + self.optional


def canonical(
    rows: Sequence[Row], *, targets: bool = True, on_bad: OnBad = refuse
) -> tuple[str, list[Row]]:
    """Name the rows' shape and bring them to its canonical fields; other fields stay.

    The first row's keys decide. With `targets=False` (rows to predict on) each row's own do, as
    rows may come one by one; the shape is the first one's. A shape's label or completion may be
    absent, and a conversation may end with its user; rows that have their answers are read as they
    are to be learned.

    ``on_bad`` is given the error of a later row that lacks the shape's fields, and of a row with
    malformed messages; by default it raises it.
    """
    if not rows:
        return "fields", []
    first = _shape_of(rows[0].fields, targets=targets)
    make = partial(_converted, first, targets) if targets else _to_answer
    return first or "fields", list(convert(rows, make, on_bad))


def inputs_of(row: Row, label_field: str = "label") -> tuple[str, ...]:
    """Name the fields of a row that are read, by which it is compared with others.

    They are those of its shape, or of a task. Of a row that has none of these they are all but its
    number and its answer.
    """
    names = {"label" if name == label_field else name: None for name in row.fields}
    shape = _SHAPES.get(_shape_of(names, targets=False) or "")
    if shape is not None and not names.keys() >= {*RELATION}:
        return shape.read
    rest = tuple(name for name in names if name not in (*TARGETS, *NUMBERS))
    known = (each for each in OF_TASKS if names.keys() >= {*each})
    return next(known, rest or tuple(row.fields))


def required_of(inputs: Sequence[str], *, named: bool = False) -> list[str]:
    """Leave out of the ``inputs_of`` a row those that may be empty.

    Where they are of no shape and of no task, and nobody has ``named`` them, that is each of them.
    """
    shape = next((each for each in _SHAPES.values() if each.read == tuple(inputs)), None)
    if shape is not None:
        return list(shape.inputs)
    return list(inputs) if named or tuple(inputs) in OF_TASKS else []


def _shape_of(names: Mapping[str, Any], *, targets: bool) -> str | None:
    """Name the shape of fields, the first of which all are there; those of answers come first."""
    for answered in (True,) if targets else (True, False):
        for name, shape in _SHAPES.items():
            if names.keys() >= {*shape.inputs, *(shape.targets if answered else ())}:
                return name
    return None


def _to_answer(row: Row) -> Row:
    return _converted(_shape_of(row.fields, targets=False), False, row)


def _converted(name: str | None, targets: bool, row: Row) -> Row:
    if name is None:
        return row
    shape = _SHAPES[name]
    _have(row, shape.inputs + (shape.targets if targets else ()))
    return Row(shape.convert(row, targets), row.where, row.task)


def require(rows: Sequence[Row], names: Iterable[str], *, mend: str = "") -> None:
    """Check that every row holds each named field as text that is not blank.

    Numbers and true or false count as text (rendered by `str`). Raises UserError otherwise;
    ``mend`` says in it how to name the column of a field that is missing.
    """
    names = list(names)
    for row in rows:
        _have(row, names, mend)
        for name in names:
            check_text(row, name, row.fields[name])


def _have(row: Row, names: Iterable[str], mend: str = "") -> None:
    for name in names:
        if name not in row.fields:
            hint = nearest(name, row.fields) + (f"; {mend}" if mend else "")
            raise UserError(f"{row.where}: missing field '{name}'; {hint}", field=name)


def _same(row: Row, _: bool) -> Mapping[str, Any]:
    return row.fields


def references_of(row: Row) -> list[str] | None:
    """Return the row's ``references``, None where it has none.

    Raises UserError where they are no list of texts.
    """
    if row.fields.get("references") is None:
        return None
    references = listed(row, "references")
    field = f'{row.where}: field "references"'
    if not isinstance(references, list):
        raise UserError(
            f"{field} is {kind(references)}, expected a list of texts; make it one",
            field="references",
        )
    if not references:
        raise UserError(f"{field} is an empty list; fill it or leave it out", field="references")
    for index, reference in enumerate(references):
        if not isinstance(reference, str):
            raise UserError(
                f"{field} holds {kind(reference)}, expected texts; mend or remove item {index}",
                field="references",
            )
        check_text(row, f"references[{index}]", reference)
    return references


def _completion(row: Row, targets: bool) -> Mapping[str, Any]:
    prompt, completion = (row.fields.get(name) for name in ("prompt", "completion"))
    if is_turns(prompt) and (completion is None or is_turns(completion)):
        rest = {k: v for k, v in row.fields.items() if k not in ("prompt", "completion")}
        whole = Row({**rest, "messages": [*prompt, *(completion or [])]}, row.where, row.task)
        return _messages(whole, targets)
    references = references_of(row)
    return row.fields if references is None else {**row.fields, "references": references}


def _instruction(row: Row, _: bool) -> Mapping[str, Any]:
    check_text(row, "instruction", row.fields["instruction"])
    prompt, extra = str(row.fields["instruction"]), row.fields.get("input")
    if extra is not None and extra != "":
        check_text(row, "input", extra)
        prompt = f"{prompt}\n{extra}"
    made = {"prompt": prompt}
    if "output" in row.fields:
        made["completion"] = row.fields["output"]
    return {**row.fields, **{n: text for n, text in made.items() if n not in row.fields}}


def _messages(row: Row, targets: bool) -> Mapping[str, Any]:
    return {**row.fields, **conversation(row, "messages", targets=targets)}


def _conversations(row: Row, targets: bool) -> Mapping[str, Any]:
    if "messages" in row.fields:
        return _messages(row, targets)
    rest = {name: value for name, value in row.fields.items() if name != "conversations"}
    return {**rest, **conversation(row, "conversations", targets=targets)}


_SHAPES = {
    "messages": _Shape(("messages",), (), _messages),
    "conversations": _Shape(("conversations",), (), _conversations),
    "prompt,completion": _Shape(("prompt",), ("completion",), _completion),
    "instruction,input,output": _Shape(("instruction",), ("output",), _instruction, ("input",)),
    "text_a,text_b,label": _Shape(("text_a", "text_b"), ("label",), _same),
    "text,label": _Shape(("text",), ("label",), _same),
}
