"""A prefix that is longer than a sliding window: what lies past it is hidden, as of text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from contract import ROWS, task_on
from families import WINDOWED, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.compression.read_ahead import read_ahead
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.context import Context
from foreword.methods.deep import Deep
from foreword.methods.parts.starts import start_ids
from foreword.methods.prefix import Prefix
from foreword.prompt.prompt import Prompt
from foreword.training.provenance import about_backbone
from oracles import FAMILIES, get
from plain import twin

WINDOW, LENGTH = 4, 9  # of which a row's first token sees three before it
TEXT = "the film was good and it was fine as a bad film is so bad"
START: dict[str, Any] = {"length": LENGTH, "start": "text", "start_text": TEXT}
NAMES = ("mistral-window", "layers of both kinds")
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]


@cache
def both() -> Backbone:
    made = backbone(Family("gemma3_text", "causal", {**WINDOWED[1].config, "layer_types": KINDS}))
    for parameter in made.model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return made


def sizes(base: Backbone, injection: Injection) -> dict[int | None, set[int]]:
    """The positions in layers of each window."""
    found: dict[int | None, set[int]] = {}
    for name, kv in injection.kv.items():
        found.setdefault(base.sites[name].window, set()).add(kv.keys.shape[1])
    return found


@torch.no_grad()
def first_logits(base: Backbone, injection: Injection) -> Tensor:
    return base.logits(base.states([Example((7,), 1, ((),), ((0, -1),))], injection))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_rows_first_token_reads_a_long_prefix_as_the_text(name: str) -> None:
    base = get(name) if name in FAMILIES else both()
    task = task_on(base).bind(base)
    hidden, seen = (
        Prefix(**START, past_window=rule).build(task, ROWS, 0)() for rule in ("hidden", "seen")
    )
    assert sizes(base, hidden)[WINDOW] == {WINDOW - 1}
    assert sizes(base, hidden).get(None, {LENGTH}) == {LENGTH}
    assert {n for found in sizes(base, seen).values() for n in found} == {LENGTH}
    assert hidden.positions == seen.positions == LENGTH
    how: Any = {"length": LENGTH, "text": TEXT, "shots": None, "seed": 0}
    ids, _ = start_ids("text", task, ROWS, **how)
    with torch.no_grad():
        read = twin(base)(torch.tensor([[*ids, 7]])).logits[0, -1]
    torch.testing.assert_close(first_logits(base, hidden), read, rtol=1e-4, atol=1e-5)
    assert (first_logits(base, seen) - read).abs().max() > 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda rule: Prefix(**{**START, "length": 5}, reparameterize=3, past_window=rule),
        lambda rule: Prefix(length=5, start="random", gate=True, past_window=rule),
        lambda rule: Deep(length=5, start="random", past_window=rule),
        lambda rule: Context(shots=2, token_dropout=0.3, past_window=rule),
    ],
)
def test_every_prefix_is_cut_and_learns(make: Callable[[str], Any]) -> None:
    base = both()
    task = task_on(base).bind(base)
    trainable = make("hidden").build(task, ROWS, 0)
    found = sizes(base, trainable())
    assert found[WINDOW] == {WINDOW - 1}
    assert min(found[None]) >= 5
    seen = trainable.training_on(range(len(ROWS)), torch.Generator().manual_seed(0))
    states = base.states([Example((5, 7), 2, ((),), ((0, -1),))] * len(ROWS), seen)
    states.sum().backward()
    assert all(p.grad is not None for p in trainable.parameters() if p.requires_grad)
    assert sizes(base, make("seen").build(task, ROWS, 0)())[WINDOW] == found[None]


def test_a_prompt_goes_on_as_it_was_begun(tmp_path: Any) -> None:
    """Also one from before the rule, of which every layer sees all positions."""
    base = both()
    task = task_on(base).bind(base)
    for rule in ("hidden", "seen"):
        injection = Prefix(**START, past_window=rule).build(task, ROWS, 0)()
        injection = injection.map(Tensor.detach)
        path = tmp_path / f"{rule}.safetensors"
        Prompt(injection, task_on(base), about_backbone(base), on=base).save(path)
        loaded = Prompt.load(path, base).injection
        assert sizes(base, loaded) == sizes(base, injection)
        again = Prefix(start=str(path)).build(task, ROWS, 0)()
        assert sizes(base, again) == sizes(base, injection)
        torch.testing.assert_close(first_logits(base, again), first_logits(base, injection))


def test_another_word_is_refused() -> None:
    base = get("mistral-window")
    with pytest.raises(UserError, match="`past_window=hiden`: did you mean 'hidden'"):
        Prefix(**START, past_window="hiden").build(task_on(base).bind(base), ROWS, 0)  # type: ignore[arg-type]


def test_a_text_that_is_compressed_may_be_longer_than_a_window() -> None:
    base = both()
    ids = base.text.ids(TEXT)
    found = read_ahead(base, ids, 1)
    assert found is not None
    with torch.no_grad():
        read = twin(base)(torch.tensor([[*ids, 7]])).logits[0, -1]
    torch.testing.assert_close(first_logits(base, found), read, rtol=1e-4, atol=1e-5)
