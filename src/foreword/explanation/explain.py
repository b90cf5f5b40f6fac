"""Explaining: every part of an explanation that a prompt, its model and its task allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foreword.data.rows import Rows
from foreword.explanation.explanation import PARTS, Explanation, Part
from foreword.prompt.prompt import Prompt
from foreword.reporter import Reporter
from foreword.tasks.registry import name_of


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
    rows that cannot be used, and for an unknown part.
    """
    left_out: dict[str, str] = dict.fromkeys(parts, "is not there yet")
    return Explanation(
        method=str(prompt.method.get("name", "?")),
        task=name_of(prompt.task),
        model=prompt.backbone["name"],
        left_out=left_out,
    )
