"""Rows that are like those a prompt fits, and rows that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import char_model
from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.prompt import familiar
from foreword.prompt.familiar import (
    FEWEST,
    MOST,
    Familiar,
    states_of_answers,
    with_familiar,
    with_states,
)
from foreword.prompt.prompt import Prompt
from foreword.serve.engine import Engine
from foreword.serve.http.metrics import Metrics
from foreword.serve.http.predict import _look
from serve.serving import SORT, WRITE, prefix, prompt_of

ROWS = [Row({"text": f"{'ab'[n % 2] * (n % 5)} day {n}"}, f"row {n}") for n in range(24)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.load(char_model.save(tmp_path_factory.mktemp("familiar") / "model"))


def test_the_furthest_row_is_compared_with_the_others_alone() -> None:
    states = np.random.default_rng(0).normal(size=(FEWEST, 3)) * [1, 5, 0.1] + [2, 0, -1]
    found = Familiar.of(torch.tensor(states))
    far = []
    for number, state in enumerate(states):
        others = np.delete(states, number, 0)
        far.append(np.sqrt((((state - others.mean(0)) / others.std(0)) ** 2).mean()))
    assert found.furthest == pytest.approx(max(far))
    kept = Familiar.read(found.plain())
    expected = np.sqrt((((states - states.mean(0)) / states.std(0)) ** 2).mean(1))
    assert kept.distances(torch.tensor(states)).numpy() == pytest.approx(expected, rel=1e-5)
    assert kept.furthest == found.furthest
    with pytest.raises(UserError, match="too few"):
        Familiar.of(torch.tensor(states[1:]))


def test_a_state_is_that_at_the_answer(backbone: Backbone) -> None:
    prompt = prompt_of(backbone, SORT, prefix(backbone, 4))
    found = states_of_answers(prompt.bound, ROWS, prompt.injection)
    assert found is not None
    for number in (0, 7, 23):
        ids = tuple(backbone.text.ids(f"{ROWS[number].fields['text']} is"))
        examples, _, _ = prompt.bound.examples_of([ROWS[number]], prompt.injection)  # type: ignore[attr-defined]
        assert examples[0].ids == ids
        alone = backbone.states(examples, prompt.injection)[0]
        assert torch.allclose(found[number], alone, atol=1e-5)
    other = prompt_of(backbone, WRITE, prefix(backbone, 1))
    assert states_of_answers(other.bound, ROWS, other.injection) is None
    with pytest.raises(UserError, match="whose answers are labels"):
        with_states(other, ROWS)


def test_rows_that_are_sorted_are_drawn_from_all(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Row] = []

    def states(bound: Any, rows: Sequence[Row], injection: Any) -> torch.Tensor:
        read.extend(rows)
        return torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(familiar, "states_of_answers", states)
    prompt = prompt_of(backbone, SORT, prefix(backbone, 4))
    rows = [Row({"text": f"{'ab'[n // MOST]} {n}"}, f"row {n}") for n in range(2 * MOST)]
    with_states(prompt, rows)
    assert len(read) == MOST
    assert {row.fields["text"][0] for row in read} == {"a", "b"}
    read.clear()
    with_states(prompt, rows[:MOST])
    assert read == rows[:MOST]


def test_a_server_counts_rows_that_are_unlike(backbone: Backbone, tmp_path: Path) -> None:
    plain = prompt_of(backbone, SORT, prefix(backbone, 4))
    states = states_of_answers(plain.bound, ROWS, plain.injection)
    assert states is not None
    numbers = states.double().numpy()
    off = np.sqrt((((numbers - numbers.mean(0)) / numbers.std(0)) ** 2).mean(1))
    limit = float(np.sort(off)[-3:-1].mean())  # two rows are beyond it
    familiar = replace(Familiar.of(states), furthest=limit)
    saved = with_familiar(plain, familiar).save(tmp_path / "p.safetensors")
    prompt = Prompt.load(saved, backbone)
    service: Any = SimpleNamespace(metrics=Metrics(), name_prompts=True, feedback=None)
    with Engine(backbone, slots=4) as engine:
        found = engine.answer(prompt, ROWS).result()
        before = engine.answer(plain, ROWS).result()
    assert [each["unlike"] for each in found] == list(off > limit)
    assert sum(off > limit) == 2
    for number, each in enumerate(found):
        assert "unlike" not in before[number]
        assert each["probabilities"] == pytest.approx(before[number]["probabilities"], abs=2e-6)
        _look(service, "sort@1", prompt, ROWS[number], each)
    assert b'foreword_unlike_rows_total{prompt="sort"} 2.0' in service.metrics.text()
