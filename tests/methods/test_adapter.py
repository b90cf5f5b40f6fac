"""Adapters keep the contract, and are what hooks on a plain model write out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import contract
import families
from families import by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.adapter import Adapter
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.soft import Soft
from foreword.training.settings import Training
from oracles import FAMILIES, FEW, get, scores
from plain import twin
from toys import toy_run

METHODS = {
    "houlsby": Adapter("houlsby", bottleneck=6, activation="gelu"),
    "pfeiffer": Adapter(bottleneck=8, activation="silu", scale=0.5),
    "parallel": Adapter("parallel", bottleneck=8, activation="tanh", gate=True),
}
FUNCTIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}
CAUSAL = [f.name for f in families.CAUSAL]


def by_hooks(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Add to the output of each module what its patch says, from what its entry has read."""
    model, read = twin(base), {}

    def keep(module: nn.Module, args: Any) -> None:
        read[module] = args[0]

    for name, (patch,) in injection.patches.items():

        def add(module: nn.Module, args: Any, output: Any, patch: Any = patch) -> Any:
            made = output[0] if isinstance(output, tuple) else output
            x = made if patch.reads is None else read[model.get_submodule(patch.reads)]
            inner = FUNCTIONS[patch.activation](x @ patch.down.T + patch.down_bias)
            more = inner @ patch.up.T + patch.up_bias
            if patch.gate is not None:
                gate = (x * patch.gate[:-1]).sum(-1, keepdim=True) + patch.gate[-1]
                more = more / (1 + torch.exp(-gate))
            made = made + more.reshape(made.shape)
            return (made, *output[1:]) if isinstance(output, tuple) else made

        model.get_submodule(name).register_forward_hook(add)
        if patch.reads is not None:
            model.get_submodule(patch.reads).register_forward_pre_hook(keep)
    return scores(base, model, example, injection)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_parallel_equals_hooks_on_a_plain_model(name: str) -> None:
    contract.equals_a_plain_oracle(METHODS["parallel"], get(name), by_hooks)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_houlsby_equals_hooks_on_a_plain_model(name: str) -> None:
    contract.equals_a_plain_oracle(METHODS["houlsby"], get(name), by_hooks)


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_pfeiffer_equals_hooks_on_a_plain_model(name: str) -> None:
    contract.equals_a_plain_oracle(METHODS["pfeiffer"], get(name), by_hooks)


@pytest.mark.parametrize("name", by_mechanism(CAUSAL))
def test_a_prefix_with_a_parallel_adapter_equals_both_on_a_plain_model(name: str) -> None:
    mam = Several((Prefix(length=3), METHODS["parallel"]))
    contract.equals_a_plain_oracle(mam, get(name), by_hooks)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
@pytest.mark.parametrize("method", ["houlsby", "parallel"])
def test_gradient_reaches_every_parameter(method: str, name: str) -> None:
    contract.gradient_reaches_every_parameter(METHODS[method], get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
@pytest.mark.parametrize("method", METHODS)
def test_a_file_gives_the_same_prompt(method: str, name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(METHODS[method], get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_the_backbone_is_untouched(name: str) -> None:
    contract.the_backbone_is_untouched(METHODS["parallel"], get(name))


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_mixed_batch_equals_single_rows(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(METHODS["parallel"], METHODS["houlsby"], get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_mixed_with_a_soft_prompt(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(METHODS["parallel"], Soft(length=3), get(name))


@pytest.mark.parametrize(
    "name", by_mechanism([n for n in FAMILIES if n not in ("albert", "mpnet")])
)
@pytest.mark.parametrize("method", ["houlsby", "parallel"])
def test_checkpointing_changes_nothing(method: str, name: str) -> None:
    contract.checkpointing_changes_nothing(METHODS[method], get(name))


# Starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_training_begins_at_the_model_itself(name: str) -> None:
    task, trainable = contract.built(METHODS["houlsby"], get(name))
    expected = contract.probabilities(task, Injection())
    torch.testing.assert_close(contract.probabilities(task, trainable()), expected)


@pytest.mark.parametrize(("placement", "scale"), [("parallel", 4.0), ("pfeiffer", 1.0)])
def test_the_scale_is_folded_into_up(placement: Any, scale: float) -> None:
    _, trainable = contract.built(Adapter(placement, bottleneck=2), get("llama"))
    parameters = dict(trainable.named_parameters())
    for name in ("up", "up_bias"):
        parameters[f"patches.0.{name}"].data.fill_(1.0)
    (patch,) = next(iter(trainable().patches.values()))
    assert patch.up_bias is not None
    assert torch.all(patch.up == scale)
    assert torch.all(patch.up_bias == scale)


def test_a_gate_starts_at_one_half() -> None:
    base = get("llama")
    gated, free = (
        contract.built(replace(METHODS["parallel"], gate=gate), base)[1]().patches
        for gate in (True, False)
    )
    for module, (patch,) in gated.items():
        assert patch.gate is not None
        assert not patch.gate.any()
        assert free[module][0].gate is None


def test_the_start_is_the_seeds() -> None:
    base = get("llama")
    one, same, other = (contract.built(METHODS["parallel"], base, s)[1]() for s in (1, 1, 2))
    for (_, a), (_, b) in zip(one.tensors(), same.tensors(), strict=True):
        assert torch.equal(a, b)
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    assert all(not torch.equal(a, b) for (name, a), (_, b) in pairs if name.endswith("down"))


# Wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (Adapter(bottleneck=0), r"`bottleneck=0`: give from 1 to 32, the width of the model"),
        (Adapter(bottleneck=33), r"`bottleneck=33`: give from 1 to 32"),
        (Adapter("parallell"), r"`placement=parallell`: did you mean 'parallel'"),  # type: ignore[arg-type]
        (Adapter(bottleneck=4, activation="rulu"), r"`activation=rulu`: did you mean 'relu'"),  # type: ignore[arg-type]
        (Adapter(bottleneck=4, scale=0.0), r"`scale=0`: give a number other than 0"),
        (Adapter(bottleneck=4, scale=float("nan")), r"`scale=nan`: give a number"),
    ],
)
def test_what_cannot_be_is_one_line(method: Adapter, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        contract.built(method, get("llama"))
    assert "\n" not in str(caught.value)


# In a run -------------------------------------------------------------------------------------


def test_a_run_on_demand_compiled_is_refused_and_by_default_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"`compile=on`: .* stands inside the layers; leave it out"):
        toy_run(None, method=METHODS["parallel"], training=Training(compile="on"))
    monkeypatch.setattr("foreword.training.settings.WORTH_COMPILING", 1)
    monkeypatch.setattr("torch.compile", lambda *args, **kwargs: pytest.fail("compiled"))
    toy_run(None, method=METHODS["parallel"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_run_with_an_upper_prefix_needs_no_trunk(checkpointing: bool) -> None:
    both = Several((Prefix(length=2, first_layer=2), METHODS["parallel"]))
    training = Training(epochs=2, batch_size=4, checkpointing=checkpointing)
    prompt = toy_run(None, method=both, training=training)
    assert prompt.injection.patches
    assert prompt.injection.kv
