"""Explaining: every part of an explanation that a prompt, its model and its task allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from foreword.data.folder import DEV
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import first
from foreword.errors import UserError, nearest
from foreword.explanation.ablation import importance
from foreword.explanation.attribution import attribute
from foreword.explanation.descriptions import describe
from foreword.explanation.explanation import PARTS, Explanation, Part
from foreword.explanation.heads import attention_on_prompt
from foreword.explanation.judge import Judge
from foreword.explanation.lens import probabilities_by_layer
from foreword.prompt.predict import rows_of
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.base import Bound
from foreword.tasks.registry import name_of
from foreword.terminal import usual_reporter

OF_ROWS: tuple[Part, ...] = ("importance", "attention", "words")
"""Parts that are of rows; the others are of one input."""

T = TypeVar("T")


def explain(
    prompt: Prompt,
    data: Rows | None = None,
    *,
    text: str | Mapping[str, Any] | None = None,
    parts: Sequence[Part] = PARTS,
    rows: int = 64,
    seed: int = 0,
    report: Reporter | None = None,
) -> Explanation:
    """Say what a prompt has learned: by rows with their answers, and by one input.

    Of ``data`` the first ``rows`` after shuffling with the seed are used: by them pieces of the
    prompt are ablated, attention is measured, and descriptions are scored. ``text`` is the input,
    or a row of its fields, that the parts "attribution" and "layers" are of; by default the first
    of the rows. ``report`` counts what is done; by default it is counted where people see it.

    What a method, a task or a model cannot show is left out with the reason. Raises UserError for
    rows or a text that cannot be used, for an ensemble, and for an unknown part.
    """
    report = usual_reporter() if report is None else report
    for part in parts:
        if part not in PARTS:
            raise UserError(f"no part of an explanation is called '{part}'; {nearest(part, PARTS)}")
    check_one_prompt(prompt)
    bound, injection = prompt.bound, prompt.injection
    chosen = [] if data is None else rows_to_explain(prompt, data, rows, seed, report)
    one = next(iter(chosen), None)
    if text is not None:
        (one,) = rows_of([text], bound, "the text")
        bound.check([one], answers=False)
    found = Explanation(
        method=str(prompt.method.get("name", "?")),
        task=name_of(prompt.task),
        model=prompt.backbone["name"],
    )
    left_out: dict[str, str] = {}
    for part in parts:
        if part in OF_ROWS and not chosen:
            left_out[part] = "needs rows with their answers"
        elif one is None:
            left_out[part] = "needs an input, or rows"

    def tried(part: Part, make: Callable[[], T]) -> T | None:
        if part not in parts or part in left_out:
            return None
        try:
            return make()
        except UserError as error:
            left_out[part] = str(error)
            return None

    ablated = tried(
        "importance",
        lambda: importance(
            Judge.of(bound, chosen, injection), Judge.of(bound.zero_shot(), chosen), report
        ),
    )
    attention = tried(
        "attention", lambda: attention_on_prompt(Judge.of(bound, chosen, injection), report)
    )
    words = tried("words", lambda: describe(bound, chosen, injection, report, seed=seed))
    assert one is not None or all(part in left_out for part in parts)
    of_one: Any = one
    found = replace(
        found,
        importance=ablated and ablated[0],
        attention=attention or (),
        words=words and words[0],
        attribution=tried("attribution", lambda: attribute(bound, of_one, injection, report)),
        layers=tried("layers", lambda: probabilities_by_layer(bound, of_one, injection)),
    )
    for several in (ablated, words):
        left_out |= several[1] if several else {}
    return replace(found, left_out=left_out)


def check_one_prompt(prompt: object) -> None:
    """Raise UserError for anything but one prompt."""
    if not isinstance(prompt, Prompt):
        raise UserError(
            f"`prompt` is of type {type(prompt).__name__}; give what tune or Prompt.load gives, of "
            "an ensemble one of the prompts that it was made of"
        )


def rows_to_explain(
    prompt: Prompt, data: Rows, most: int, seed: int, report: Reporter
) -> list[Row]:
    """Return the rows that are used; raises UserError where there are none, or of another task."""
    if most < 1:
        raise UserError(f"`rows={most}`: give at least 1")
    found = as_rows(data, split=DEV, fields=prompt.bound.pair, report=report)
    if not found:
        raise UserError("there are no rows; give some with their answers")
    chosen = first(found, min(most, len(found)), seed)
    used = {id(row) for row in chosen}
    prompt.bound.check([row for row in found if id(row) in used], answers=True)
    return chosen


def check_classes(bound: Bound, name: str, rows: Sequence[Row]) -> None:
    """Raise UserError for rows of one label alone: a prompt that always gives it looks perfect.

    ``name`` is what the rows are called.
    """
    if bound.answer == "label" and len(found := {bound.class_of(row) for row in rows}) < 2:
        which = "the one row has" if len(rows) == 1 else f"all {len(rows)} rows have"
        raise UserError(
            f"{name}: {which} the label '{found.pop()}'; give rows of two labels or more"
        )
