"""Prompts as keys and values of every layer: what becomes them, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from composed import logits, prompt
from foreword.errors import UserError
from foreword.export.prefix import prefix_of
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
        (Head(), "llama", "a head over classes.* with `method=prefix`, or .*--to onnx"),
        (Soft(length=3), "bert", "of the kind masked"),
        (Prefix(length=3, first_layer=1), "llama", "2 of 3 layers"),
        (
            Prefix(length=4),
            "mistral-window",
            "4 positions do not fit the sliding window .*--to onnx",
        ),
        (
            Prefix(length=6),
            "gemma3_text-window",
            "6 positions do not fit the sliding window",
        ),  # cut there
        (
            Prefix(length=6, past_window="seen"),
            "gemma3_text-window",
            "do not fit the sliding window",
        ),
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
