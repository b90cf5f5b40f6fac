"""Pruning, where it is known what carries the answer, and files of fewer bytes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handmade import LAYERS, ROWS, bound, prefix, prompt, soft, word

from foreword.errors import UserError
from foreword.evaluation.evaluate import evaluate
from foreword.explanation.judge import Judge
from foreword.explanation.pieces import without_positions
from foreword.explanation.prune import prune, rises
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT


def test_the_virtual_token_that_carries_the_answer_stays() -> None:
    found = prune(prompt(soft(place=2)), ROWS, tolerance=0, report=SILENT)
    assert found.tokens == (0, 1, 3)
    assert (found.before.tokens, found.after.tokens, found.after.score) == (4, 1, 100)
    assert found.prompt.injection.leading == 1
    assert torch.equal(found.prompt.injection.embeds, soft(place=2).embeds[2:3])
    assert found.left_out == {"layers": "virtual tokens are read by all layers alike"}
    assert found.after.bytes * 4 == found.before.bytes


def test_the_layer_and_the_position_that_carry_the_answer_stay() -> None:
    whole = prompt(prefix(layer=1, place=3))
    found = prune(whole, ROWS, tolerance=0, report=SILENT)
    assert found.tokens == (0, 1, 2)
    assert found.layers == tuple(f"layer {n}" for n in range(LAYERS) if n != 1)
    (kv,) = found.prompt.injection.kv.values()
    assert kv.values.abs().sum() == 30
    assert found.prompt.injection.positions == whole.injection.positions


def test_no_more_goes_than_the_tolerance_allows() -> None:
    """Two tokens for the wrong answer and three for the right one: one of these must not go."""
    parts = [soft(0, 1), soft(0, 1), soft(0, 1), soft(0, 1, "bad"), soft(0, 1, "bad")]
    several = torch.cat([part.embeds for part in parts if part.embeds is not None])
    whole = prompt(Injection(embeds=several, leading=5))
    found = prune(whole, ROWS, tolerance=0, report=SILENT)
    assert found.before.score == found.after.score == 100
    assert {3, 4} <= set(found.tokens)
    assert len(found.tokens) < 5


def test_what_the_loss_misses_stays_though_every_answer_is_right_without_it() -> None:
    injection = prefix(layer=1, place=0)
    site = list(injection.kv)[1]
    values = torch.zeros_like(injection.kv[site].values)
    values[0, :2] = word("good")  # at two positions of four
    injection = replace(injection, kv={**injection.kv, site: KV(values * 0, values)})
    found = prune(prompt(injection), ROWS, tolerance=0, drop=["tokens"], report=SILENT)
    assert found.tokens == (2, 3)
    judge = Judge.of(bound(), ROWS, injection)
    assert judge.measure("", without_positions(injection, [1, 2, 3])).score == 100


def test_losses_rise_where_the_mean_change_is_above_its_standard_error() -> None:
    assert not rises([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert rises([1.0, 2.0, 3.0], [1.1, 2.1, 3.1])
    assert not rises([1.0, 2.0, 3.0], [0.9, 1.9, 2.9])
    assert not rises([1.0, 1.0], [1.2, 1.0])  # 0.1, error 0.1
    assert rises([0.0] * 4, [0.2, 0.2, 0.2, 0.0])  # 0.15, error 0.05


def test_what_is_left_scores_what_it_says(tmp_path: Path) -> None:
    found = prune(prompt(prefix(layer=1, place=3)), ROWS, store="int8", report=SILENT)
    found.prompt.save(tmp_path / "p.safetensors", store=found.store)
    read = Prompt.load(tmp_path / "p.safetensors", found.prompt.on)
    assert dict(evaluate(read, ROWS, report=SILENT))["accuracy"] == found.after.score
    assert read.scores["dev"] == {"accuracy": found.after.score, "rows": len(ROWS) // 2}
    assert read.method["pruned"] == {"tokens": [0, 1, 2], "layers": ["layer 0", "layer 2"]}
    for name, tensor in found.prompt.injection.tensors():
        assert torch.equal(tensor, dict(read.injection.tensors())[name])


def test_tokens_that_stand_for_the_beginning_of_a_text_stay() -> None:
    injection = replace(prefix(layer=1, place=3), bos=1)
    found = prune(prompt(injection), ROWS, tolerance=0, drop=["tokens"], report=SILENT)
    assert found.tokens == (1, 2)
    assert found.prompt.injection.bos == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -1}, "`tolerance=-1`: give 0 or more"),
        ({"tolerance": math.nan}, "`tolerance=nan`: give 0 or more"),
        ({"drop": ["heads"]}, "`drop=heads`: no such pieces"),
        ({"rows": 0}, "`rows=0`"),
        ({"rows": 1}, "one row is too few to prune by"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prune(prompt(soft(place=2)), ROWS, report=SILENT, **settings)


def test_a_prompt_that_has_nothing_to_drop() -> None:
    with pytest.raises(UserError, match="no virtual tokens and no keys and values"):
        prune(prompt(Injection()), ROWS, report=SILENT)
