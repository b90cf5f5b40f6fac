"""The learning rate test: rates, smoothing, the rule, and the command."""

from __future__ import annotations

import math

import pytest
import torch

from foreword.errors import UserError
from foreword.methods.full import Full
from foreword.methods.soft import Soft
from foreword.training.find_rate import DIVERGED, Curve, _Over, _steepest, _Test, find_rate
from foreword.training.settings import Training
from toys import TASK, get, rows


def found(method: object = None, **more: object) -> Curve:
    how = method or Soft(length=3, start="random")
    training = Training(batch_size=4)
    return find_rate(get(), TASK, how, rows(16), training=training, **more)  # type: ignore[arg-type]


def test_rates_rise_by_one_factor_and_the_suggestion_is_one_of_them() -> None:
    curve = found(Full(), low=1e-5, high=10.0, steps=40)
    assert curve.rates[0] == pytest.approx(1e-5)
    assert curve.rates[-1] <= 10.0 * (1 + 1e-9)
    factor = (10.0 / 1e-5) ** (1 / 39)
    for before, after in zip(curve.rates, curve.rates[1:], strict=False):
        assert after / before == pytest.approx(factor)
    assert curve.suggestion in curve.rates
    assert len(curve.losses) == len(curve.rates)


def test_it_is_repeatable_and_leaves_the_backbone_alone() -> None:
    weight = get().model.get_input_embeddings().weight.clone()
    assert found(Full(), steps=20) == found(Full(), steps=20)
    assert torch.equal(weight, get().model.get_input_embeddings().weight)


def test_it_ends_where_the_loss_has_multiplied() -> None:
    curve = found(Full(), low=1e-5, high=1e3, steps=60)
    assert len(curve.rates) < 60
    assert max(curve.losses) < 1e6
    assert curve.suggestion < curve.rates[curve.losses.index(min(curve.losses))] * 1.001


def test_the_loss_is_a_running_mean_without_bias() -> None:
    test = _Test()
    for number, loss in enumerate([4.0, 2.0, 1.0], 1):
        test.step(number, {"loss": loss, "rate": number / 10})
    weights = [0.81, 0.9, 1.0]
    by_hand = (0.81 * 4 + 0.9 * 2 + 1.0) / sum(weights)
    assert test.losses[0] == pytest.approx(4.0)
    assert test.losses[-1] == pytest.approx(by_hand)
    with pytest.raises(_Over):
        test.step(4, {"loss": DIVERGED * 100.0, "rate": 1.0})


def test_the_steepest_fall_before_the_lowest_loss() -> None:
    assert _steepest([1, 2, 4, 8, 16], [5.0, 4.5, 3.0, 2.9, 9.0]) == 4
    assert _steepest([1, 2, 4, 8], [5.0, 4.0, 6.0, 5.5]) == 2  # a fall after the lowest is none
    with pytest.raises(UserError, match=r"the loss falls at no learning rate"):
        _steepest([1, 2, 4], [1.0, 2.0, 3.0])
    with pytest.raises(UserError, match=r"the loss falls at no learning rate"):
        _steepest([], [])


@pytest.mark.parametrize("more", [{"low": 0.0}, {"low": 2.0}, {"high": math.inf}, {"steps": 2}])
def test_ranges_that_are_none(more: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"rates above 0, the lower one first"):
        found(**more)
