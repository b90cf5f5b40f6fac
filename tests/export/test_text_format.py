"""Prompts as text templates: the hard prompt in its place, as any tool fills it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import contract
from composed import prompt
from foreword.errors import UserError
from foreword.export.text import Text, format_string
from foreword.injection import NOTHING
from foreword.methods.prefix import Prefix
from foreword.tasks.templates.template import Template


def test_the_template_reads_as_the_row_behind_the_text(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3)).with_text("A good film or a bad one?")
    written = Text().write(tuned, tmp_path / "p.txt")
    row = contract.ROWS[0]
    filled = written.read_text("utf-8").format(**row.fields)
    assert filled.startswith("A good film or a bad one?\n")
    ids = tuned.bound.backbone.text.ids(filled)
    bare = replace(tuned, injection=NOTHING).bound_as(tuned.bound)
    with_it = bare.bound.examples_of([row], NOTHING, "A good film or a bad one?\n")[0][0]  # type: ignore[attr-defined]
    assert list(with_it.ids[with_it.bos :]) == ids


@pytest.mark.parametrize(
    ("source", "values", "filled"),
    [
        ("{a}: {{x}} [[y]]", {"a": "b"}, "b: {x} [y]"),
        ("{a} ", {"a": "b"}, "b"),  # the space before an answer is the answer's
        ("{a} [mask].", {"a": "b"}, "b <mask>."),
    ],
)
def test_braces_and_brackets_are_those_of_str_format(
    source: str, values: dict[str, Any], filled: str
) -> None:
    assert format_string(Template.parse(source), "<mask>").format(**values) == filled


def test_a_prompt_without_a_text_is_refused_with_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--save-text"):
        Text().write(prompt(Prefix(length=3)), tmp_path / "p.txt")
    with pytest.raises(UserError, match="demonstrations"):
        format_string(Template.parse("{demos:2}{a}"))
    assert not list(tmp_path.iterdir())
