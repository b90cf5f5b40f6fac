"""Explanations on every mechanism: the ways that save work give what the plain way gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foreword.explanation.ablation import importance
from foreword.explanation.attribution import attribute
from foreword.explanation.candidates import Opening, written
from foreword.explanation.judge import Judge
from foreword.explanation.lens import probabilities_by_layer
from foreword.explanation.pieces import without_sites
from foreword.injection import ClassHead, Injection
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.reporter import SILENT
from foreword.tasks.base import Bound
from foreword.tasks.classify import Classify
from toys import get, rows

ROWS = rows(6)
LABELS = {"good": " good", "bad": " bad"}


def made(family: str, method: Soft | Prefix) -> tuple[Bound, Injection]:
    template = "{text} : [mask]" if family == "bert" else "{text} :"
    bound = Classify(template=template, labels=LABELS).bind(get(family))
    with torch.no_grad():
        injection = method.build(bound, ROWS, 0)()
    assert isinstance(injection, Injection)
    return bound, injection.map(torch.Tensor.detach)


@pytest.mark.parametrize(
    ("family", "headed"), [("llama", False), ("llama", True), ("bert", False), ("t5", False)]
)
def test_a_layer_is_left_out_as_if_it_had_no_prefix(family: str, headed: bool) -> None:
    bound, injection = made(family, Prefix(length=4))
    if headed:
        weight = torch.randn(2, bound.backbone.width, generator=torch.Generator().manual_seed(0))
        injection = replace(injection, head=ClassHead(weight, torch.zeros(2)))
        bound = bound.with_head()
    judge = Judge.of(bound, ROWS, injection)
    found, _ = importance(judge, Judge.of(bound.zero_shot(), ROWS), SILENT)
    assert found is not None
    plain = [judge.measure("", without_sites(injection, [site])) for site in bound.backbone.sites]
    expected = [each.loss for each in plain]
    assert [each.loss for each in found.layers] == pytest.approx(expected, abs=1e-5)
    assert len(found.tokens) == 4


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
@pytest.mark.parametrize("method", [Soft(length=3), Prefix(length=4)], ids=["soft", "prefix"])
def test_contributions_add_up_within_the_delta(family: str, method: Soft | Prefix) -> None:
    bound, injection = made(family, method)
    found = attribute(bound, ROWS[0], injection, SILENT)
    added = sum(each.value for each in (*found.tokens, *found.virtual))
    assert added - (found.answered - found.baseline) == pytest.approx(found.delta, abs=1e-4)
    assert abs(found.delta) < 0.05


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_last_layer_decodes_to_the_answer_itself(family: str) -> None:
    bound, injection = made(family, Soft(length=3))
    found = probabilities_by_layer(bound, ROWS[0], injection)
    for table, own, under in (
        (found.prompt, bound, injection),
        (found.untouched, bound.zero_shot(), Injection()),
    ):
        (answer,) = own.predict([ROWS[0]], under)
        assert table[-1] == pytest.approx(tuple(answer["probabilities"].values()), abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_texts_are_written_side_by_side_as_one_by_one(family: str) -> None:
    bound, injection = made(family, Soft(length=3))
    backbone = bound.backbone
    virtual = range(backbone.vocabulary, backbone.vocabulary + 3)
    inside = Injection(embeds=injection.embeds)
    openings = [
        Opening(backbone.text.ids("a film"), injection, "one", 0),
        Opening(
            [*backbone.text.ids("it was"), *virtual, *backbone.text.ids(":")], inside, "two", 3
        ),
        Opening(backbone.text.ids("good"), Injection(), "three", 1),
    ]
    together = written(backbone, openings, "asked", 2)
    alone = [each for one in openings for each in written(backbone, [one], "asked", 2)]
    assert together == alone
    assert [each.source for each in together] == ["one", "one", "two", "two", "three", "three"]
