"""Cartridges keep the methods' contract, and begin as the first positions of a text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import contract
import families
from families import by_mechanism
from foreword.errors import UserError
from foreword.methods.cartridge import Cartridge, PrefixWithSink
from oracles import FAMILIES, FEW, get

CARRIED = [n for n in FAMILIES if n not in [f.name for f in families.UNREACHED]]
TEXT = "the film was good and it was fine as a bad film is so bad"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(TEXT, "utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi"])
def test_it_starts_as_the_texts_beginning_in_front(name: str, text: str) -> None:
    """A row under it scores as the row after those tokens, by the plain model."""
    base = get(name)
    _, made = contract.built(Cartridge(text, 5), base)
    ids = [*base.text.around[0], *base.text.ids(TEXT)][:5]
    held = base.kv(ids)
    with torch.no_grad():
        found = made()
    assert found.positions == 5
    for site, kv in found.kv.items():
        assert torch.equal(kv.keys, held[site].keys)
        assert torch.equal(kv.values, held[site].values)


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_gradient_reaches_every_parameter_but_the_sink(name: str, text: str) -> None:
    task, made = contract.built(Cartridge(text, 4, sink=2), get(name))
    contract.backward(task, made)
    assert isinstance(made, PrefixWithSink)
    for parameter in made.rest.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in made.sunk.parameters())


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_the_sink_stays_in_training(name: str, text: str) -> None:
    method = Cartridge(text, 4, sink=2)
    _, before = contract.built(method, get(name))
    after = contract.trained(method, get(name))
    for site, kv in after().kv.items():
        old = before().kv[site]
        assert torch.equal(kv.keys[:, :2], old.keys[:, :2])
        assert torch.equal(kv.values[:, :2], old.values[:, :2])
        assert not torch.equal(kv.values[:, 2:], old.values[:, 2:])


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_a_file_gives_the_same_prompt(name: str, text: str, tmp_path: Path) -> None:
    if name in CARRIED:
        contract.a_file_gives_the_same_prompt(Cartridge(text, 4), get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism(CARRIED))
def test_a_mixed_batch_equals_single_rows(name: str, text: str) -> None:
    contract.a_mixed_batch_equals_single_rows(Cartridge(text, 4), Cartridge(text, 2), get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_the_backbone_is_untouched(name: str, text: str) -> None:
    if name in CARRIED:
        contract.the_backbone_is_untouched(Cartridge(text, 4), get(name))


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Cartridge(), "give the text that it stands for, with `text=F`"),
        (Cartridge("none.txt"), "none.txt: cannot be read"),
        (Cartridge("TEXT", 4, sink=4), "`sink=4`: give from 0 to 3"),
        (Cartridge("TEXT", 4, sink=-1), "`sink=-1`: give from 0 to 3"),
        (Cartridge("TEXT", 400), "no more than the 400 positions"),
    ],
)
def test_what_cannot_be(method: Cartridge, says: str, text: str) -> None:
    from dataclasses import replace

    method = replace(method, text=text) if method.text == "TEXT" else method
    with pytest.raises(UserError, match=says):
        contract.built(method, get("llama"))


@pytest.mark.parametrize("name", [family.name for family in families.RECURRENT])
def test_a_state_has_no_positions_to_keep(name: str, text: str) -> None:
    family = next(family for family in families.RECURRENT if family.name == name)
    with pytest.raises(UserError, match="keeps one state of all that it reads"):
        contract.built(Cartridge(text, 4), families.backbone(family))


@pytest.mark.parametrize("name", by_mechanism([family.name for family in families.UNREACHED]))
def test_what_cannot_carry_it_says_so(name: str, text: str) -> None:
    with pytest.raises(UserError, match="cannot take a prefix"):
        contract.built(Cartridge(text, 4), get(name))
