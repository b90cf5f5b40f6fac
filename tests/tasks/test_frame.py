"""Frames: text with virtual tokens in front of a template."""

from __future__ import annotations

import pytest

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.methods.auto import Auto
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from foreword.tasks.templates.frame import framed
from toys import get, rows


@pytest.mark.parametrize(
    ("template", "want"),
    [
        ("{text}\nLabel:", "Please [soft:3]. {text}\nLabel:"),
        ("\n{text}", "Please [soft:3].\n{text}"),
        ("[system]Be brief.[user]{text}", "[system]Please [soft:3]. Be brief.[user]{text}"),
    ],
)
def test_a_frame_stands_in_front(template: str, want: str) -> None:
    assert framed(template, "Please [soft:3].") == want


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("Please.", "holds no virtual tokens"),
        ("[soft:3] {text}", "fields are the template's"),
        ("[soft:0]", "zero virtual tokens"),
    ],
)
def test_what_is_no_frame_is_refused(frame: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        framed("{text}", frame)


def test_a_task_is_framed_with_the_template_of_its_rows() -> None:
    task = Classify().framed("Please [soft:3].", rows(4), get())
    assert task.template == "Please [soft:3]. {text}\nLabel:"
    assert task.bind(get()).virtual == 3


def test_what_is_tuned_where_nothing_is_named_is_the_virtual_tokens() -> None:
    given = [Row({"text": f"a film {n}", "label": ("good", "bad")[n % 2]}, "") for n in range(4)]
    bound = Classify().framed("Please [soft:3].", given, get()).bind(get())
    found, why = Auto().choose(bound, given)
    assert found == Soft()
    assert why == "soft, since the template places virtual tokens"
    assert Auto(Prefix(rate=0.5)).choose(bound, given)[0] == Soft(rate=0.5)
    with pytest.raises(UserError, match="which a prefix does not have"):
        Auto(Prefix(length=3)).build(bound, given, 0)
