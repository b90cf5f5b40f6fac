"""P-tuning keeps the contract, and its virtual tokens are what its network, written out, makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import contract
import families
from families import by_mechanism
from foreword.errors import UserError
from foreword.methods.ptuning import PTuning, Reparameterized
from foreword.methods.soft import Soft
from foreword.prompt.prompt import Prompt
from foreword.tasks.classify import Classify
from oracles import FAMILIES, FEW, embeddings_in_front, get
from toys import toy_run

METHODS = {
    "lstm": PTuning(length=3, hidden=6),
    "mlp": PTuning(length=4, hidden=8, encoder="mlp", start="random"),
}


def one_way(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> Tensor:
    """An LSTM layer by its equations: (n, in) -> (n, hidden)."""
    state = cell = torch.zeros(u.shape[1])
    found = []
    for step in x:
        i, f, g, o = (w @ step + u @ state + b).chunk(4)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        state = torch.sigmoid(o) * torch.tanh(cell)
        found.append(state)
    return torch.stack(found)


def network(made: Reparameterized) -> Tensor:
    """What the network makes of its inputs, by hand: (n, width)."""
    own = {name: p.detach() for name, p in made.named_parameters()}
    x = own["inputs"]
    for layer in range(2) if made.lstm is not None else ():
        ways = []
        for back in ("", "_reverse"):
            w, u, b, c = (
                own[f"lstm.{kind}_l{layer}{back}"]
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            turned = x.flip(0) if back else x
            states = one_way(turned, w, u, b + c)
            ways.append(states.flip(0) if back else states)
        x = torch.cat(ways, 1)
    x = (x @ own["mlp.0.weight"].T + own["mlp.0.bias"]).clamp(min=0)
    return x @ own["mlp.2.weight"].T + own["mlp.2.bias"]


@pytest.mark.parametrize("kind", METHODS)
def test_its_tokens_are_the_start_and_what_the_network_makes(kind: str) -> None:
    base = get("llama")
    made = contract.trained(METHODS[kind], base)
    assert isinstance(made, Reparameterized)
    moved = network(made)
    assert float(moved.abs().max()) > 1e-3
    torch.testing.assert_close(made().embeds, made.soft.embeds + moved, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", METHODS)
def test_it_begins_as_the_soft_prompt_of_the_same_start(kind: str) -> None:
    base, method = get("llama"), METHODS[kind]
    _, made = contract.built(method, base, seed=3)
    _, soft = contract.built(Soft(method.length, method.start), base, seed=3)
    assert torch.equal(made().embeds, soft().embeds)
    assert made().leading == method.length
    again = contract.built(method, base, seed=3)[1].state_dict()
    other = contract.built(method, base, seed=4)[1].state_dict()
    assert all(torch.equal(again[n], p) for n, p in made.state_dict().items())
    assert not torch.equal(other["inputs"], again["inputs"])


def test_it_stands_where_the_template_puts_it() -> None:
    base = get("llama")
    task = Classify(template='[soft:"it was"]{text}[soft:2]:', labels=contract.LABELS).bind(base)
    made = PTuning(hidden=4).build(task, contract.ROWS, 0)()
    assert (made.leading, len(made.embeds)) == (0, task.virtual)
    assert torch.equal(made.embeds, Soft().build(task, contract.ROWS, 0)().embeds)


def test_building_it_draws_nothing_from_the_common_source_of_chance() -> None:
    before = torch.get_rng_state()
    contract.built(METHODS["lstm"], get("llama"))
    assert torch.equal(before, torch.get_rng_state())


def test_the_file_holds_nothing_but_the_embeddings(tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    prompt = toy_run(out, method=METHODS["lstm"])
    read = Prompt.load(out)
    assert [name for name, _ in read.injection.tensors()] == ["embeds"]
    assert torch.equal(read.injection.embeds, prompt.injection.embeds)
    assert out.stat().st_size < 5000
    assert read.method["encoder"] == "lstm"


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (PTuning(hidden=0), "`hidden=0`: give a width of at least 1"),
        (PTuning(encoder="lsmt"), "`encoder=lsmt`: unknown; did you mean 'lstm'?"),  # type: ignore[arg-type]
        (PTuning(length=0), "0 virtual tokens; give from 1 to"),
        (PTuning(length=10**6), "1000000 virtual tokens; give from 1 to"),
        (PTuning(start="demos"), "unknown start 'demos'"),
    ],
)
def test_what_cannot_be_is_refused(method: PTuning, what: str) -> None:
    with pytest.raises(UserError) as caught:
        contract.built(method, get("llama"))
    assert what in str(caught.value)


# The contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_equals_embeddings_in_front(name: str) -> None:
    contract.equals_a_plain_oracle(METHODS["lstm"], get(name), embeddings_in_front)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_gradient_reaches_every_parameter(name: str) -> None:
    for method in METHODS.values():
        contract.gradient_reaches_every_parameter(method, get(name))


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_mixed_batch_equals_single_rows(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(METHODS["lstm"], METHODS["mlp"], get(name))


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_checkpointing_changes_nothing(name: str) -> None:
    if get(name).model.supports_gradient_checkpointing:
        contract.checkpointing_changes_nothing(METHODS["lstm"], get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_a_file_gives_the_same_prompt(name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(METHODS["lstm"], get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_the_backbone_is_untouched(name: str) -> None:
    contract.the_backbone_is_untouched(METHODS["mlp"], get(name))


@pytest.mark.parametrize("family", families.RECURRENT, ids=lambda family: family.name)
def test_a_recurrent_model_carries_it(family: families.Family, tmp_path: Path) -> None:
    base = families.backbone(family)
    contract.gradient_reaches_every_parameter(METHODS["lstm"], base)
    contract.a_file_gives_the_same_prompt(METHODS["lstm"], base, tmp_path)
