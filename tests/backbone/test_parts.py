"""Stacks run in part, rows packed, few scores: on every family equal to the whole."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import (
    FAMILIES,
    FULL,
    LEAD,
    LONG,
    RECURRENT_NAMES,
    ROWS,
    WINDOWS,
    asking,
    get,
    random_kv,
)

from families import MASKED, by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.backbone.run.layers import LayerRange, no_compiler
from foreword.injection import Injection

ENCODERS = [name for name in FAMILIES if name.startswith(("bart", "marian"))]
MASKS = [f.name for f in MASKED if f.name != "albert"]
PARTED = [*FULL, *RECURRENT_NAMES, *MASKS, *ENCODERS]


def upper(base: Backbone, layer: int) -> Injection:
    whole = random_kv(base, 3)
    low = [s for s in base.sites.values() if s.layer < layer]
    kept = {n: kv for n, kv in whole.kv.items() if base.sites[n] not in low}
    return Injection(kv=kept, positions=whole.positions)


@pytest.mark.parametrize("name", FULL)
def test_causal_families_are_packed_and_parted(name: str) -> None:
    base = get(name)
    assert base.can_pack
    assert base.can_skip_lower_layers(base.window or 1000)


@pytest.mark.parametrize("name", WINDOWS)
def test_rows_beyond_a_window_are_not_cut_up(name: str) -> None:
    base = get(name)
    assert base.window is not None
    assert base.can_skip_lower_layers(base.window)
    assert not base.can_skip_lower_layers(base.window + 1)


@pytest.mark.parametrize(
    "name", by_mechanism([n for n in FAMILIES if n not in PARTED and n not in WINDOWS])
)
def test_others_are_not(name: str) -> None:
    assert not get(name).can_skip_lower_layers(1)
    assert not get(name).can_pack


@pytest.mark.parametrize(
    ("layer", "name"),
    [*((1, name) for name in PARTED), *by_mechanism((2, name) for name in PARTED)],
)
def test_upper_layers_on_stored_states_equal_all_layers(name: str, layer: int) -> None:
    base = get(name)
    injection = upper(base, layer)
    if base.architecture != "causal":
        asked = [Example(row, 2, ((2,), (2, 2)), ((0, 0), (1, 1), (1, 0))) for row in ROWS]
    else:
        branches, targets = ((5, 6), (5, 7, 8), (9,)), ((0, 1), (1, -1), (1, 2), (2, 0))
        asked = [Example((*LEAD, *r), len(LEAD) + len(r), branches, targets) for r in ROWS]
    frame = Injection(positions=injection.positions)
    lead = len(LEAD) if base.can_pack else 0
    with torch.no_grad():
        first, rows = base.lower_states(asked, frame, lead, layer)
        assert first.shape == (lead, base.width)
        found = base.states(asked, injection, lead, LayerRange(layer, (first, *rows)))
        expected = torch.cat([base.states([each], injection) for each in asked])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        # In another order and company the states are those of the same rows.
        some = base.states(asked[::-2], injection, lead, LayerRange(layer, (first, *rows[::-2])))
        alone = torch.cat([base.states([each], injection) for each in asked[::-2]])
        torch.testing.assert_close(some, alone, rtol=1e-5, atol=1e-5)
        wrong = base.states(
            asked, injection, lead, LayerRange(layer, (first, *(2 * r for r in rows)))
        )
    assert not torch.allclose(wrong, expected, atol=1e-3)


@pytest.mark.parametrize("name", FULL)
def test_a_packed_lead_counts_as_the_text_before_each_row(name: str) -> None:
    base = get(name)
    injection = random_kv(base, 4)
    asked = [asking(name, (*LEAD, *row)) for row in (*ROWS, LONG)]
    asked = [Example((*e.ids, *e.branches[0]), len(e.ids) + len(e.branches[0]), ((),), ((0, -1),))
             for e in asked]  # fmt: skip
    with torch.no_grad():
        together = base.states(asked, injection, len(LEAD))
        alone = torch.cat([base.states([each], injection) for each in asked])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_few_scores_are_those_of_all(name: str) -> None:
    base = get(name)
    tokens = (77, 3, 120)
    with torch.no_grad():
        states = base.states([asking(name, row) for row in ROWS])
        torch.testing.assert_close(
            base.logits(states, tokens), base.logits(states)[:, list(tokens)], rtol=1e-5, atol=1e-6
        )
        other = base.logits(states, (8, 9))  # other tokens than those that were asked for before
        torch.testing.assert_close(other, base.logits(states)[:, [8, 9]], rtol=1e-5, atol=1e-6)


def test_what_a_compiler_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> None:
        raise InvalidCxxCompiler

    monkeypatch.setattr(torch._inductor.cpp_builder, "get_cpp_compiler", none)
    assert no_compiler(torch.device("cpu")) == "there is no C++ compiler"
    assert no_compiler(torch.device("cuda")) is None
    assert no_compiler(torch.device("mps")) == "nothing is compiled for mps"
