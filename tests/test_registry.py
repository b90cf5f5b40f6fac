"""Registries: names without imports, settings read from sources, and classes of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from foreword.config.registry import Registry
from foreword.config.settings import declared, setting, settings_of
from foreword.errors import UserError
from foreword.export.registry import EXPORTS
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.registry import METHODS
from foreword.methods.registry import name_of as method_name
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from foreword.tasks.registry import TASKS
from foreword.tasks.registry import name_of as task_name
from foreword.training.register import CONFIGURATIONS, check_settings, register
from foreword.training.settings import Training
from foreword.training.tune import tune

BUILT_IN = [
    *(METHODS.entries[name] for name in METHODS),
    *(TASKS.entries[name] for name in TASKS),
    *(EXPORTS.entries[name] for name in EXPORTS),
    *CONFIGURATIONS.values(),
]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = [dict(registry.entries) for registry in (METHODS, TASKS, EXPORTS)]
    yield
    METHODS.entries, TASKS.entries, EXPORTS.entries = before  # type: ignore[assignment]


@pytest.mark.parametrize("path", BUILT_IN)
def test_a_source_declares_what_its_class_has(path: str) -> None:
    """The flags of a command are made of the sources, its configurations of the classes."""
    module, _, name = path.partition(":")
    cls = getattr(__import__(module, fromlist=[name]), name)
    read, true = declared(path), settings_of(cls)
    assert [each.name for each in read] == [each.name for each in true]
    for ours, theirs in zip(read, true, strict=True):
        if ours.name == "decoding":
            continue
        assert ours.flag == theirs.flag, ours.name
        assert ours.help == theirs.help != "", ours.name
        simple = theirs.default is None or isinstance(theirs.default, str | int | float)
        assert ours.default == (theirs.default if simple else ours.default), ours.name


@pytest.mark.parametrize("registry", [METHODS, TASKS], ids=["method", "task"])
def test_no_built_in_setting_takes_what_is_meant_for_another(registry: Registry[Any]) -> None:
    for name in registry:
        check_settings(registry, name, registry.settings(name))


def test_a_registry_is_a_mapping_of_classes() -> None:
    assert METHODS["lora"] is Lora
    assert "lora" in METHODS
    assert "nothing" not in METHODS
    with pytest.raises(KeyError):
        METHODS["nothing"]
    assert dict(METHODS.items())["soft"] is Soft
    assert len(METHODS) == len(list(METHODS))


@dataclasses.dataclass(frozen=True)
class Mine:
    """A method that is never built."""

    strength: float = setting(2.0, help="how strong it is")
    rate: float = 0.1
    shots: int = 2

    def build(self, *_: Any) -> Any: ...


def test_a_class_of_ones_own_is_registered_under_its_name() -> None:
    assert register("mine")(Mine) is Mine
    assert METHODS["mine"] is Mine
    assert method_name(Mine()) == "mine"
    assert METHODS.settings("mine")[0].help == "how strong it is"
    assert METHODS.settings("mine")[1].help == ""
    with pytest.raises(UserError, match=r"^method 'mine' is registered already; choose another"):
        register("mine")(Mine)


def test_a_class_that_writes_is_an_export_format() -> None:
    @register("mine")
    @dataclasses.dataclass(frozen=True)
    class Written:
        rows: int = setting(3, help="of another command, so it may be named as one of the run")

        def write(self, *_: Any) -> Any: ...

    assert EXPORTS["mine"] is Written
    assert "mine" not in METHODS


def test_a_subclass_is_registered_for_itself() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sorted(Classify):
        """A classification with another name."""

    with pytest.raises(UserError, match=r"^task Sorted is not registered, .* @foreword.register"):
        task_name(Sorted())
    register("sorted")(Sorted)
    assert task_name(Sorted()) == "sorted"
    assert task_name(Classify()) == "classify"


def made(**fields: Any) -> type:
    """A method with these settings."""
    typed = [(name, type(value), value) for name, value in fields.items()]
    return dataclasses.make_dataclass("Made", typed, bases=(Mine,), frozen=True)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"dropout": 0.1}, "setting 'dropout' is one of training, and means something else there"),
        ({"rows": 3}, "setting 'rows' is one of the run, and means something else there"),
        ({"beams": 3}, "setting 'beams' is one of decoding, and means something else there"),
        ({"template": "x"}, "setting 'template' is one of task classify, and means something else"),
        ({"length": "x"}, "setting 'length' is one of method soft, and has another type there"),
        ({"name": "x"}, "prompt files have a 'name' of their own"),
    ],
)
def test_a_setting_with_the_name_of_another_is_refused(fields: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        register("mine")(made(**fields))
    assert str(caught.value).startswith(f"method 'mine': {line}")
    assert str(caught.value).endswith("give it another name")
    assert "mine" not in METHODS


def test_settings_that_mean_the_same_are_shared() -> None:
    register("mine")(made(length=3, start="text", seed=1))
    assert [each.name for each in METHODS.settings("mine")][-3:] == ["length", "start", "seed"]


@pytest.mark.parametrize(
    ("name", "cls", "line"),
    [
        ("my method", Mine, "method 'my method': give a name of letters, digits and _"),
        ("mine", object, "'mine': object has neither build"),
        ("mine", type("Plain", (), {"build": None}), "method 'mine': Plain must be a frozen data"),
        ("mine", type("Plain", (Mine,), {}), "method 'mine': Plain must be a frozen dataclass"),
        (
            "mine",
            dataclasses.make_dataclass("Made", ["size"], namespace={"build": 0}, frozen=True),
            "method 'mine': setting 'size' needs a default; give it one",
        ),
    ],
)
def test_what_cannot_be_registered_says_why(name: str, cls: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        register(name)(cls)
    assert str(caught.value).startswith(line)


def test_a_setting_is_a_field_like_any_other() -> None:
    assert Training(epochs=3) == dataclasses.replace(Training(), epochs=3)
    assert Training().dev_sample == Training.dev_sample == 300
    helps = {each.name: each.help for each in settings_of(Training)}
    assert helps["seed"] == "seed of rows, starts and order"


def test_what_is_not_registered_is_refused_before_any_work() -> None:
    """No rows are read, and no backbone is asked: there are none."""
    nothing: Any = None
    with pytest.raises(UserError, match=r"^method Mine is not registered"):
        tune(nothing, Classify(), Mine(), "nowhere.jsonl")
    with pytest.raises(UserError, match=r"^method Mine is not registered"):
        tune(nothing, Classify(), Several((Soft(), Mine())), "nowhere.jsonl")

    @dataclasses.dataclass(frozen=True)
    class Sorted(Classify):
        """A classification with another name."""

    with pytest.raises(UserError, match=r"^task Sorted is not registered"):
        tune(nothing, Sorted(), Soft(), "nowhere.jsonl")
