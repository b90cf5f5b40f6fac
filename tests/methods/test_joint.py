"""Methods that stand together: each at its own rate, and what cannot be shared refused."""

from __future__ import annotations

import pytest

import contract
from families import REACHED, backbone
from foreword.errors import UserError
from foreword.methods.deep import Deep
from foreword.methods.full import Full
from foreword.methods.head import Head
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.registry import kinds, name_of
from foreword.methods.soft import Soft
from foreword.training.configure import method_from
from foreword.training.settings import Training
from foreword.training.step import adamw

LLAMA = next(family for family in REACHED if family.name == "llama")


def test_the_injection_is_that_of_all_parts() -> None:
    base = backbone(LLAMA)
    both = Several((Prefix(length=3), Soft(length=2), Head()))
    _, trainable = contract.built(both, base)
    made = trainable()
    assert (made.positions, made.leading) == (3, 2)
    assert made.kv
    assert made.embeds is not None
    assert made.head is not None
    assert name_of(both) == "prefix+soft+head"


@pytest.mark.parametrize(
    ("methods", "what"),
    [
        (
            (Soft(length=2), Soft(length=3)),
            "soft and soft cannot stand together: both bring virtual",
        ),
        ((Prefix(length=2), Prefix(length=2)), "keys and values"),
        ((Head(), Head()), "a head"),
    ],
)
def test_what_there_is_one_place_for_is_refused(methods: tuple[Soft, ...], what: str) -> None:
    with pytest.raises(UserError, match=what):
        contract.built(Several(methods), backbone(LLAMA))


def test_each_part_is_trained_at_its_own_rate() -> None:
    base = backbone(LLAMA)
    both = Several((Prefix(length=3, rate=0.5), Head(rate=0.25)))
    _, trainable = contract.built(both, base)
    groups = adamw(trainable, Training(), both.rate).param_groups
    assert {group["base_rate"] for group in groups[:-2]} == {0.5}
    assert {group["base_rate"] for group in groups[-2:]} == {0.25}
    same = adamw(trainable, Training(rate=0.125), both.rate).param_groups
    assert {group["base_rate"] for group in same} == {0.125}


def test_settings_go_to_every_part_that_has_them() -> None:
    given = {"length": 7, "epochs": 3, "first_layer": 1}
    made = method_from("prefix+soft", given, "settings")
    assert isinstance(made, Several)
    prefix, soft = made.methods
    assert isinstance(prefix, Prefix)
    assert isinstance(soft, Soft)
    assert (prefix.length, soft.length, prefix.first_layer) == (7, 7, 1)
    assert given == {"epochs": 3}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("prefix+", "unknown ''"),
        ("prefix+sofd", "unknown 'sofd'; .*soft"),
        ("soft+soft", "'soft' stands twice"),
    ],
)
def test_wrong_names_are_told(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        kinds(name)


def test_the_outline_has_the_shapes_of_the_injection_and_no_numbers() -> None:
    for method in (Several((Deep(length=2), Head())), Lora(rank=2), Full()):
        _, trainable = contract.built(method, backbone(LLAMA))
        real, outline = trainable(), trainable.outline
        assert outline.settings() == real.settings()
        kept = dict(outline.tensors())
        for name, tensor in real.tensors():
            assert kept[name].shape == tensor.shape
            assert kept[name].untyped_storage().nbytes() == tensor.element_size()
        assert trainable.has_head == (outline.head is not None)
