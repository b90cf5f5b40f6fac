"""Configurations: to plain values and back, and every mistake named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.backbone.decode import Decoding
from foreword.config.values import from_plain, plain
from foreword.errors import UserError
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.training.settings import Training


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int = 1
    on: bool = False
    side: Literal["left", "right"] = "left"
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)
    words: Mapping[str, str | Sequence[str]] | None = None


@dataclass(frozen=True)
class Demanding:
    path: str
    size: int = 1


CONFIGS = [
    Soft(),
    Soft(length=7, start="random", rate=1.0),
    Prefix(),
    Prefix(length=3, first_layer=2, start="text", start_text="[x]", reparameterize=5),
    Classify(),
    Classify(template="{a}", labels={"x": " x", "y": (" y", "z")}, truncate="left"),
    Generate(template="{a}", decoding=Decoding(beams=3, stop=("\n", "é"))),
    Decoding(),
    Training(),
    Outer(words={}, inner=Inner(names=("a",))),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_through_json_and_back(config: Any) -> None:
    assert from_plain(type(config), json.loads(json.dumps(plain(config))), "F") == config


TEXT = st.text(max_size=5)


@given(
    st.builds(
        Outer,
        count=st.integers(),
        on=st.booleans(),
        side=st.sampled_from(["left", "right"]),
        maybe=st.none() | st.integers(),
        inner=st.builds(
            Inner, rate=st.floats(allow_nan=False), names=st.lists(TEXT, max_size=3).map(tuple)
        ),
        words=st.none()
        | st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=2).map(tuple), max_size=3),
    )
)
def test_any_values_through_json_and_back(config: Outer) -> None:
    assert from_plain(Outer, json.loads(json.dumps(plain(config))), "F") == config


def test_what_is_left_out_keeps_its_default() -> None:
    assert from_plain(Outer, {"inner": {"rate": 2}}, "F") == Outer(inner=Inner(rate=2.0))


def test_a_whole_number_is_a_number() -> None:
    made = from_plain(Inner, {"rate": 1}, "F")
    assert type(made.rate) is float


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"count": np.int64(3), "maybe": np.int32(2), "inner": {"rate": np.float32(0.25)}}
    made = from_plain(Outer, given, "F")
    assert made == Outer(count=3, maybe=2, inner=Inner(rate=0.25))
    assert {type(made.count), type(made.maybe)} == {int}
    assert type(made.inner.rate) is float
    whole = Outer(count=np.int64(3), on=True)  # type: ignore[arg-type]
    assert json.loads(json.dumps(plain(whole))) == plain(Outer(count=3, on=True))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"cuont": 1}, "F: unknown setting 'cuont'; did you mean 'count'?"),
        ({1: 2}, "F: unknown setting '1'"),
        ({"inner": {"rat": 1}}, "F: setting 'inner': unknown setting 'rat'; did you mean 'rate'?"),
        ({"count": "1"}, "F: setting 'count' is '1', expected a whole number"),
        ({"count": 1.0}, "F: setting 'count' is 1.0, expected a whole number"),
        ({"count": np.float64(1.0)}, "expected a whole number"),
        ({"count": True}, "F: setting 'count' is True, expected a whole number"),
        ({"count": None}, "F: setting 'count' is None, expected a whole number"),
        ({"on": 1}, "F: setting 'on' is 1, expected true or false"),
        ({"side": "lef"}, "F: setting 'side' is 'lef'; did you mean 'left'?"),
        ({"side": ["left"]}, "F: setting 'side' is"),
        ({"maybe": "x"}, "F: setting 'maybe' is 'x', expected a whole number or nothing"),
        ({"inner": 3}, "F: setting 'inner' is 3, expected an object"),
        ({"inner": {"rate": "x"}}, "F: setting 'inner': setting 'rate' is 'x', expected a number"),
        ({"inner": {"rate": True}}, "expected a number"),
        ({"inner": {"names": "ab"}}, "setting 'names' is 'ab', expected a list"),
        ({"inner": {"names": ["a", 1]}}, "setting 'names' is 1, expected text"),
        ({"words": {"a": 1}}, "F: setting 'words' is"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError) as raised:
        from_plain(Outer, values, "F")
    assert what in str(raised.value)


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(UserError, match=r"F: setting 'path' is missing"):
        from_plain(Demanding, {"size": 2}, "F")
