"""A gated prefix keeps the contract, and is a prefix whose values are weighed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import contract
import families
from families import by_mechanism
from foreword.methods.prefix import Prefix
from foreword.reporter import SILENT
from foreword.training.tune import tune
from oracles import FAMILIES, get, scores
from plain import twin

GATED = Prefix(length=3, gate=True)
CARRIED = [name for name in FAMILIES if get(name).sites]


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
@pytest.mark.parametrize("hidden", [None, 4])
def test_it_starts_as_the_prefix_with_half_its_values(name: str, hidden: int | None) -> None:
    _, gated = contract.built(Prefix(length=3, gate=True, reparameterize=hidden), get(name))
    _, free = contract.built(Prefix(length=3, reparameterize=hidden), get(name))
    made, whole = gated(), free()
    assert made.positions == whole.positions
    for site, kv in whole.kv.items():
        assert torch.equal(made.kv[site].keys, kv.keys)
        torch.testing.assert_close(made.kv[site].values, kv.values / 2)


@pytest.mark.parametrize("hidden", [None, 4])
def test_it_goes_on_from_a_prompt_at_the_prompt_itself(hidden: int | None, tmp_path: Path) -> None:
    base, file = get("llama"), tmp_path / "p.safetensors"
    old = tune(base, contract.task_on(base), GATED, contract.ROWS, contract.ROWS, report=SILENT)
    old.save(file)
    method = Prefix(start=str(file), gate=True, reparameterize=hidden)
    _, gated = contract.built(method, base)
    expected = dict(old.injection.tensors())
    assert {name: t.tolist() for name, t in gated().tensors()} == {
        name: t.tolist() for name, t in expected.items()
    }


def test_each_site_has_a_gate_of_its_own() -> None:
    _, gated = contract.built(GATED, get("llama"))
    before = gated().kv
    gates = dict(gated.named_parameters())["gates"]
    gates.data[1] = 100.0
    for number, (site, kv) in enumerate(gated().kv.items()):
        torch.testing.assert_close(kv.values, before[site].values * (2 if number == 1 else 1))


@pytest.mark.parametrize("name", by_mechanism([f.name for f in families.CAUSAL]))
def test_it_equals_keys_and_values_in_the_models_cache(name: str) -> None:
    contract.equals_a_plain_oracle(
        GATED, get(name), lambda base, made, row: scores(base, twin(base), row, made)
    )


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_gradient_reaches_every_parameter(name: str) -> None:
    contract.gradient_reaches_every_parameter(GATED, get(name))


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_the_rest_of_the_contract(name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(GATED, get(name), tmp_path)
    contract.the_backbone_is_untouched(GATED, get(name))
    contract.a_mixed_batch_equals_single_rows(GATED, Prefix(length=5, start="random"), get(name))
    contract.checkpointing_changes_nothing(GATED, get(name))
