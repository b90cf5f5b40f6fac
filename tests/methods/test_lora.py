"""LoRA keeps the contract, and is the real peft's, module by module and number by number."""

from __future__ import annotations

import copy
import importlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import Conv1D, PreTrainedModel

import contract
import families
from families import by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.adapter import Adapter
from foreword.methods.lora import Lora
from foreword.methods.parts.patches import Patches
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.training.tune import tune
from language import rows, task, taught
from oracles import FAMILIES, FEW, get, scores
from plain import twin
from quick import need_library
from toys import TRAINING, toy_run

LORA = Lora(rank=4, alpha=6.0)
OTHER = Lora(rank=2, init="orthogonal", rslora=True)
MIXTURES = ("qwen3_moe", "gpt_oss")


def injected(base: Backbone, config: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The plain model with peft's own layers in it, and these by name."""
    model = twin(base)
    turned = any(isinstance(module, Conv1D) for module in model.modules())
    peft.inject_adapter_in_model(peft.LoraConfig(fan_in_fan_out=turned, **config), model)
    return model, {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def by_peft(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Hand A and B to the real peft, which multiplies them by alpha / r."""
    config = {"r": 4, "lora_alpha": 6.0, "target_modules": list(injection.patches)}
    model, layers = injected(base, config)
    assert layers.keys() == injection.patches.keys()
    for name, (patch,) in injection.patches.items():
        layers[name].lora_A["default"].weight.copy_(patch.down)
        layers[name].lora_B["default"].weight.copy_(patch.up / 1.5)
    return scores(base, model.eval(), example, injection)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_equals_the_real_peft(name: str) -> None:
    contract.equals_a_plain_oracle(LORA, get(name), by_peft)


@pytest.mark.parametrize("name", by_mechanism([f.name for f in families.CAUSAL]))
def test_a_prefix_with_lora_equals_both_on_a_plain_model(name: str) -> None:
    contract.equals_a_plain_oracle(Several((Prefix(length=3), LORA)), get(name), by_peft)


@pytest.mark.parametrize("name", by_mechanism([n for n in FAMILIES if n not in MIXTURES]))
def test_all_linear_is_what_peft_takes_for_it(name: str) -> None:
    _, trainable = contract.built(LORA, get(name))
    _, layers = injected(get(name), {"target_modules": "all-linear"})
    pooler = {
        layer for layer in layers if layer.startswith("pooler.")
    }  # which a mean does not read
    assert trainable().patches.keys() == layers.keys() - pooler


@pytest.mark.parametrize("name", MIXTURES)
def test_of_a_mixture_of_experts_the_attention_is_updated(name: str) -> None:
    _, trainable = contract.built(LORA, get(name))
    assert {n.split(".")[-2] for n in trainable().patches} == {"self_attn"}
    assert len(trainable().patches) == 12


@pytest.mark.parametrize(
    ("init", "theirs"), [("kaiming", True), ("gaussian", "gaussian"), ("orthogonal", "orthogonal")]
)
@pytest.mark.parametrize("rslora", [False, True])
def test_the_start_and_the_scale_are_pefts(init: str, theirs: Any, rslora: bool) -> None:
    method = Lora(rank=4, alpha=6.0, init=init, rslora=rslora)
    _, trainable = contract.built(method, get("llama"), seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 6.0, "use_rslora": rslora, "init_lora_weights": theirs}
    _, layers = injected(get("llama"), {**settings, "target_modules": "all-linear"})
    torch.set_rng_state(state)
    assert next(iter(layers.values())).scaling["default"] == (3.0 if rslora else 1.5)
    for name, (patch,) in trainable().patches.items():
        layer = layers[name]
        ours = patch.up @ patch.down
        assert ours.any() == (init == "orthogonal")
        assert patch.down.shape == layer.lora_A["default"].weight.shape
        expected = layer.lora_B["default"].weight * layer.scaling["default"]
        if not rslora:
            torch.testing.assert_close(patch.up.std(), expected.std(), rtol=0.5, atol=0)
        torch.testing.assert_close(
            patch.down.std(), layer.lora_A["default"].weight.std(), rtol=0.5, atol=0
        )


@pytest.mark.parametrize("rslora", [False, True])
def test_what_is_trained_is_scaled_as_by_peft(rslora: bool) -> None:
    base = get("llama")
    _, trainable = contract.built(Lora(rank=4, alpha=6.0, rslora=rslora), base)
    assert isinstance(trainable, Patches)
    with torch.no_grad():
        for parameter in trainable.parameters():
            parameter.normal_()
    config = {"r": 4, "lora_alpha": 6.0, "use_rslora": rslora, "target_modules": "all-linear"}
    _, layers = injected(base, config)
    for (name, (patch,)), own in zip(trainable().patches.items(), trainable.patches, strict=True):
        layers[name].lora_A["default"].weight.data.copy_(own["down"])
        layers[name].lora_B["default"].weight.data.copy_(own["up"])
        expected = layers[name].get_delta_weight("default")
        torch.testing.assert_close(patch.up @ patch.down, expected)


def test_no_random_number_of_others_is_used_up() -> None:
    torch.manual_seed(5)
    contract.built(LORA, get("llama"))
    found = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(3))


# The clauses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_gradient_reaches_every_parameter(name: str) -> None:
    contract.gradient_reaches_every_parameter(replace(LORA, gate=True), get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_a_file_gives_the_same_prompt(name: str, tmp_path: Path) -> None:
    contract.a_file_gives_the_same_prompt(replace(LORA, gate=True), get(name), tmp_path)


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_the_backbone_is_untouched(name: str) -> None:
    base = get(name)
    before = {n: id(m) for n, m in base.model.named_modules()}
    config = copy.deepcopy(base.model.config)
    contract.the_backbone_is_untouched(LORA, base)
    assert {n: id(m) for n, m in base.model.named_modules()} == before
    assert base.model.config.to_dict() == config.to_dict()


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_mixed_batch_equals_single_rows(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(LORA, OTHER, get(name))


@pytest.mark.parametrize("name", by_mechanism(FEW))
def test_mixed_with_an_adapter(name: str) -> None:
    contract.a_mixed_batch_equals_single_rows(LORA, Adapter(bottleneck=8), get(name))


@pytest.mark.parametrize(
    "name", by_mechanism([n for n in FAMILIES if n not in ("albert", "mpnet")])
)
def test_checkpointing_changes_nothing(name: str) -> None:
    contract.checkpointing_changes_nothing(LORA, get(name))


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_prefix_adapter_and_lora_stand_together_behind_gates(name: str) -> None:
    unipelt = Several(
        (
            Prefix(length=3, gate=True),
            Adapter(bottleneck=8, gate=True),
            Lora(rank=4, gate=True),
        )
    )
    contract.gradient_reaches_every_parameter(unipelt, get(name))


# Targets and wrong input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "count"),
    [(("q_proj", "v_proj"), 6), (("model.layers.1.mlp.up_proj",), 1), (("mlp.up_proj",), 3)],
)
def test_targets_are_matched_by_the_ends_of_names(targets: tuple[str, ...], count: int) -> None:
    _, trainable = contract.built(Lora(rank=4, targets=targets), get("llama"))
    found = trainable().patches
    assert len(found) == count
    assert all(name.endswith(targets) for name in found)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (Lora(rank=0), r"`rank=0`: give at least 1"),
        (Lora(rank=17), r"`rank=17`: give from 1 to 16, the smallest size"),
        (Lora(alpha=0.0), r"`alpha=0`: give a number above 0"),
        (Lora(targets=("q_prj",)), r"`targets=q_prj`: no such layer; did you mean 'q_proj'\? "),
        (Lora(targets=("q_proj", "lm_head")), r"`targets=lm_head`: no such layer"),
        (Lora(targets=("embed_tokens",)), r"`targets=embed_tokens`: no such layer"),
        (Lora(targets=()), r"`targets`: name at least one layer, or all-linear"),
        (Lora(init="pissa"), r"`init=pissa`: .* own weights .*; give kaiming or gaussian"),
        (Lora(init="loftq"), r"`init=loftq`: .* own weights"),
        (Lora(init="eva"), r"`init=eva`: it needs a pass over the data"),
        (Lora(init="gausian"), r"`init=gausian`: unknown; did you mean 'gaussian'"),
        (Lora(rank=3, init="orthogonal"), r"`init=orthogonal` with `rank=3`: give an even rank"),
    ],
)
def test_what_cannot_be_is_one_line(method: Lora, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        contract.built(method, get("llama"))
    assert "\n" not in str(caught.value)


def test_without_peft_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"needs peft: pip install 'foreword\[peft\]'"):
        contract.built(LORA, get("llama"))


def test_what_peft_imports_remarks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as bitsandbytes, which says that it found no kernels of its own for the processor."""
    logger, heard = logging.getLogger("bitsandbytes.kernels"), list[logging.LogRecord]()
    monkeypatch.setattr(logger, "filters", [heard.append])  # which lets none through

    def remarking(name: str, package: str | None = None) -> Any:
        if name == "peft":
            logger.warning("no kernels")
        return real(name, package)

    base, real = get("llama"), importlib.import_module
    monkeypatch.setattr(importlib, "import_module", remarking)
    remarking("peft")
    assert len(heard) == 1
    contract.built(LORA, base)
    assert len(heard) == 1


# In a run -------------------------------------------------------------------------------------


def test_the_same_run_ends_in_the_same_file(tmp_path: Path) -> None:
    method = Lora(rank=2, targets=("q_proj",))
    for name in ("a", "b"):
        toy_run(tmp_path / f"{name}.safetensors", method=method)
    one, two = ((tmp_path / f"{n}.safetensors").read_bytes() for n in "ab")
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_quantized_backbone_is_tuned_nearly_as_the_whole(kind: str, name: str) -> None:
    need_library(kind)
    whole = taught(name, 150)
    small = Backbone(
        copy.deepcopy(whole.model),
        whole.text.tokenizer,
        architecture=whole.architecture,
        name=name,
        quantized=kind,
    )
    options: dict[str, Any] = {"training": TRAINING}
    made = [
        tune(base, task(name), Lora(rank=4), rows(24, 1), rows(8, 2), **options).injection
        for base in (whole, small)
    ]
    assert made[0].patches.keys() == made[1].patches.keys()
    flat = [torch.cat([t.flatten() for _, t in one.tensors()]) for one in made]
    assert float(torch.cosine_similarity(flat[0], flat[1], 0)) > 0.9
