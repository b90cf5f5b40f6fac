"""Prompts as keys and values of every layer: what becomes them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from composed import GENERATE, logits, prompt
from foreword.errors import UserError
from foreword.export.prefix import beyond_window, prefix_of
from foreword.injection import KV, Injection
from foreword.methods.base import Method
from foreword.methods.head import Head
from foreword.methods.ia3 import IA3
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt


def whole(tuned: Prompt) -> Injection:
    found = prefix_of(tuned, "it", "merge it")
    kv = {site.name: own for site, own in zip(found.sites, found.layers, strict=True)}
    return Injection(kv=kv, positions=found.length)


@pytest.mark.parametrize("method", [Soft(length=3), Prefix(length=3)], ids=["soft", "prefix"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rows_behind_the_prefix_score_as_behind_the_prompt(method: Method, family: str) -> None:
    tuned = prompt(method, name=family)
    assert tuned.on is not None
    expected = logits(tuned.on, tuned.injection)
    assert torch.allclose(logits(tuned.on, whole(tuned)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "name", "reason"),
    [
        (IA3(), "llama", "changes the model itself; merge it"),
        (Head(), "llama", "a head over classes"),
        (Soft(length=3), "bert", "of the kind masked"),
        (Prefix(length=3, first_layer=1), "llama", "2 of 3 layers"),
        (Prefix(length=4), "mistral-window", "sliding window"),
    ],
)
def test_what_keys_and_values_cannot_hold_is_refused_in_one_line(
    method: Method, name: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        prefix_of(prompt(method, name=name), "it", "merge it")
    assert "\n" not in str(caught.value)


def test_keys_of_pruned_positions_are_refused() -> None:
    tuned = prompt(Prefix(length=3))
    kv = {n: KV(own.keys[:, 1:], own.values[:, 1:]) for n, own in tuned.injection.kv.items()}
    with pytest.raises(UserError, match="3 positions with 2 keys"):
        prefix_of(replace(tuned, injection=replace(tuned.injection, kv=kv)), "it", "")


def test_rows_that_outgrow_a_sliding_window_are_told_of() -> None:
    task: Any = replace(GENERATE, max_length=6)
    tuned = prompt(Prefix(length=2), name="mistral-window", task=task)
    said = beyond_window(tuned, prefix_of(tuned, "it", ""))
    assert said is not None
    assert "after the first 2" in said
    one = replace(GENERATE.decoding, max_new_tokens=1)
    short: Any = replace(GENERATE, max_length=1, decoding=one)
    tuned = replace(tuned, task=short)
    assert beyond_window(tuned, prefix_of(tuned, "it", "")) is None
    longer: Any = replace(GENERATE, max_length=1, decoding=replace(one, max_new_tokens=2))
    tuned = replace(tuned, task=longer)
    assert beyond_window(tuned, prefix_of(tuned, "it", "")) is not None  # its answer outgrows it
    tuned = prompt(Prefix(length=2))
    assert beyond_window(tuned, prefix_of(tuned, "it", "")) is None
