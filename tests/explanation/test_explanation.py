"""Explanations as values: plain and back."""

from __future__ import annotations

import json

import pytest

from foreword.errors import UserError
from foreword.explanation.explanation import (
    Attribution,
    Contribution,
    Description,
    Descriptions,
    Explanation,
    Importance,
    LayerAttention,
    LayerProbabilities,
    Measured,
)

WHOLE, BARE = Measured("prompt", 90.0, 0.2), Measured("untouched", 60.0, 0.9)


def described(kind: str, gain: float | None, score: float) -> Description:
    return Description("say good", kind, "layer 3", score, 0.5, gain)  # type: ignore[arg-type]


EXPLANATION = Explanation(
    method="soft",
    task="classify",
    model="tiny",
    importance=Importance("accuracy", 8, WHOLE, BARE, tokens=(Measured("token 0", 60.0, 0.8),)),
    attention=(LayerAttention("layer 0", (0.5, 0.25)),),
    words=Descriptions("accuracy", 8, WHOLE, BARE, (described("asked", None, 60.0),)),
    attribution=Attribution("a film", "good", -0.1, -2.0, 0.01, (Contribution("a", 1.9),), ()),
    layers=LayerProbabilities(
        "a film", ("good", "bad"), ("layer 0",), ((0.5, 0.5),), ((1.0, 0.0),)
    ),
    left_out={"importance: layers": "a soft prompt of this model has no keys and values"},
)


def test_an_explanation_comes_back_from_json() -> None:
    assert Explanation.from_dict(json.loads(json.dumps(EXPLANATION.to_dict()))) == EXPLANATION


def test_other_values_are_no_explanation() -> None:
    with pytest.raises(UserError, match="unknown setting 'text'"):
        Explanation.from_dict({"text": "x"})


def test_the_best_description_is_faithful_and_recovers_something() -> None:
    texts = (
        described("nearest", 1.0, 90.0),
        described("asked", 0.5, 75.0),
        described("asked", -1, 30),
    )
    assert Descriptions("accuracy", 8, WHOLE, BARE, texts).best == texts[1]
    assert Descriptions("accuracy", 8, WHOLE, BARE, texts[::2]).best is None
    as_good = described("control", 0.5, 75.0)
    assert Descriptions("accuracy", 8, WHOLE, BARE, (*texts, as_good)).best is None


def test_markup_in_a_text_is_shown_in_a_notebook_and_not_run() -> None:
    hostile = Description("<b>say", "asked", "layer 3", 90.0, 0.2, 1.0)
    words = Descriptions("accuracy", 8, WHOLE, BARE, (hostile,))
    shown = Explanation("soft", "classify", "tiny", words=words)._repr_html_()
    assert "<td>&lt;b&gt;say</td>" in shown
    assert "<td>100%</td>" in shown
