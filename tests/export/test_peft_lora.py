"""Low-rank updates as PEFT folders: the real PEFT's logits, and the same bits there and back."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Conv1D

import contract
from families import by_mechanism
from foreword.backbone.backbone import Backbone
from foreword.engine.passes import infer
from foreword.errors import UserError
from foreword.export.peft import from_peft, to_peft
from foreword.injection import ClassHead, Injection
from foreword.methods.adapter import Adapter
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.prompt.prompt import Prompt
from foreword.tasks.templates.layout import room_for
from oracles import get, in_double, scores
from plain import twin

# PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

FAMILIES = ["llama", "gpt2", "qwen2", "opt", "phi3", "gpt_neox", "qwen3_moe", "bert", "t5", "bloom"]
TYPES = {"causal": "CAUSAL_LM", "masked": "FEATURE_EXTRACTION", "encoder-decoder": "SEQ_2_SEQ_LM"}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def prompt(base: Backbone, injection: Injection) -> Prompt:
    made_on = {
        "name": base.name,
        "architecture": base.architecture,
        "fingerprint": base.fingerprint,
    }
    return Prompt(injection, contract.task_on(base), made_on, on=base)


def agree(base: Backbone, injection: Injection, model: Any) -> None:
    task = contract.task_on(base).bind(base)
    if base.name == "t5":  # as in the contract
        base, injection, model = in_double(base), injection.map(torch.Tensor.double), model.double()
    for row in contract.ROWS:
        example = task.dev_example(row, room_for(base, injection)).example
        with torch.no_grad():
            ((_, found),) = infer(base, injection, [example])
            expected = scores(base, model, example)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def theirs(name: str, folder: Path, **settings: Any) -> Any:
    """A PEFT adapter with random numbers, saved."""
    base = get(name)
    model = twin(base)
    turned = any(isinstance(module, Conv1D) for module in model.modules())
    settings = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", **settings}
    config = LoraConfig(task_type=TYPES[base.architecture], fan_in_fan_out=turned, **settings)
    made = get_peft_model(model, config).eval()
    noise = torch.Generator().manual_seed(0)
    for key, tensor in made.named_parameters():
        if "lora_" in key:
            tensor.data.copy_(torch.randn(tensor.shape, generator=noise) * 0.3)
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize("name", by_mechanism(FAMILIES))
def test_a_folder_of_ours_loads_in_peft_and_comes_back(name: str, tmp_path: Path) -> None:
    base = get(name)
    injection = contract.trained(Lora(rank=4, alpha=6.0), base)()
    folder = to_peft(prompt(base, injection), tmp_path / "F")
    agree(base, injection, PeftModel.from_pretrained(twin(base), str(folder)))
    again = from_peft(folder, base, contract.task_on(base)).injection
    kept, read = dict(injection.tensors()), dict(again.tensors())
    assert kept.keys() == read.keys()
    assert all(torch.equal(tensor, read[key]) for key, tensor in kept.items())
    assert again.settings() == injection.settings()


@pytest.mark.parametrize("name", by_mechanism([n for n in FAMILIES if n != "qwen3_moe"]))
def test_a_folder_of_theirs_runs_the_same_here(name: str, tmp_path: Path) -> None:
    model = theirs(name, tmp_path)
    found = from_peft(tmp_path, get(name), contract.task_on(get(name)))
    agree(get(name), found.injection, model)
    assert found.method["name"] == "lora"


def test_ranks_and_scales_by_pattern(tmp_path: Path) -> None:
    model = theirs(
        "llama",
        tmp_path,
        use_rslora=True,
        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 3},
        alpha_pattern={r"layers\.[02]\..*v_proj": 11, "down_proj": 1},
    )
    base = get("llama")
    found = from_peft(tmp_path, base, contract.task_on(base)).injection
    agree(base, found, model)
    ranks = {len(own[0].down) for own in found.patches.values()}
    assert ranks == {2, 3, 4}
    back = to_peft(prompt(base, found), tmp_path / "back")
    agree(base, found, PeftModel.from_pretrained(twin(base), str(back)))


def mapped(found: Injection, change: Any) -> Injection:
    return replace(found, patches={m: (change(own[0]),) for m, own in found.patches.items()})


def test_what_is_no_low_rank_update_does_not_go_out(tmp_path: Path) -> None:
    base = get("llama")
    lora = contract.trained(Lora(rank=4), base)()
    with_prefix = contract.trained(Several((Prefix(length=2), Lora(rank=4))), base)()
    weights = replace(lora, weights={"lm_head.weight": torch.zeros(160, 32)}, patches={})
    head = replace(lora, head=ClassHead(torch.zeros(2, 32), torch.zeros(2)))
    for injection, reason in [
        (contract.trained(Adapter(bottleneck=4), base)(), "has an adapter, and PEFT keeps low-r"),
        (contract.trained(Lora(rank=4, gate=True), base)(), "has a gate"),
        (mapped(lora, lambda p: replace(p, up_bias=torch.zeros(len(p.up)))), "bias of its own"),
        (lora.joined(lora), "has 2 patches, and LORA one"),
        (with_prefix, "it has a prefix and low-rank updates, and an adapter holds one"),
        (weights, "it holds all weights of the model"),
        (head, "it holds a head over classes"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            to_peft(prompt(base, injection), tmp_path / "F")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "F").exists()
    with pytest.raises(UserError, match="kind 'PREFIX_TUNING': this prompt can become LORA"):
        to_peft(prompt(base, lora), tmp_path / "F", kind="PREFIX_TUNING")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "its use_dora is True, which cannot be imported"),
        ({"bias": "all"}, "also trains biases"),
        ({"init_lora_weights": "pissa"}, "its start 'pissa' changed the model's own weights"),
        ({"lora_alpha": "much"}, "lora_alpha or alpha_pattern is damaged"),
        ({"lora_alpha": None}, "lora_alpha or alpha_pattern is damaged"),
        ({"alpha_pattern": {"(": 1}}, "lora_alpha or alpha_pattern is damaged"),
        ({"alpha_pattern": [1]}, "lora_alpha or alpha_pattern is damaged"),
        ({"target_parameters": ["x"]}, "its target_parameters is"),
        ({"from_the_future": 1}, "its from_the_future is 1, which cannot be imported"),
        ({"r": 8}, "is of rank 4, and of 8 by its settings; copy both files of one adapter"),
        ({"rank_pattern": {"q_proj": 2}}, "is of rank 4, and of 2 by its settings"),
        ({"r": None}, "r or rank_pattern is damaged"),
        ({"target_modules": "("}, "its target_modules are damaged"),
    ],
)
def test_settings_that_mean_something_else_are_refused(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    theirs("llama", tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    (tmp_path / CONFIG).write_text(json.dumps({**config, **settings}), "utf-8")
    with pytest.raises(UserError, match=reason):
        from_peft(tmp_path, get("llama"), contract.task_on(get("llama")))


def renamed(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: renamed(t, "layers.0.", "layers.7."), "layers.7.*is no update of a linear lay"),
        (lambda t: {n: v for n, v in t.items() if "lora_A" in n}, "one half is missing"),
        (lambda t: {n: v for n, v in t.items() if "lora_B" in n}, "is no update of a linear layer"),
        (lambda t: {**t, f"{Q}.lora_A.weight": torch.zeros(4, 9)}, r"shapes \(4, 9\) and \(32, 4"),
        (lambda t: {**t, f"{Q}.lora_A.weight": torch.zeros(3, 32)}, r"needs \(r, 32\) and"),
        (lambda t: {**t, f"{Q}.lora_A.weight": torch.zeros(())}, r"shapes \(\) and"),
        (lambda t: {**t, f"{Q}.lora_B.weight": torch.full((32, 4), torch.nan)}, "NaN or Inf"),
        (lambda t: {**t, "base_model.model.score.weight": torch.zeros(2, 32)}, "score.weight"),
        (lambda t: {"x": torch.zeros(1)}, "holds 'x'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: Any, reason: str, tmp_path: Path) -> None:
    theirs("llama", tmp_path)
    save_file(change(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=reason) as caught:
        from_peft(tmp_path, get("llama"), contract.task_on(get("llama")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "targets",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": r".*\.(q|up)_proj"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "down_proj"], "exclude_modules": ["down_proj"]},
        {"target_modules": "all-linear", "exclude_modules": r".*layers\.1\..*"},
    ],
)
def test_a_folder_that_lacks_a_layer_is_refused(targets: dict[str, Any], tmp_path: Path) -> None:
    """What PEFT adapted is what must be there, by however its settings name it."""
    base = get("llama")
    made = theirs("llama", tmp_path, **targets)
    adapted = {n.removeprefix("base_model.model.") for n in made.targeted_module_names}
    held = load_file(tmp_path / WEIGHTS)
    assert len(held) == 2 * len(adapted)
    agree(base, from_peft(tmp_path, base, contract.task_on(base)).injection, made)
    for lost in sorted(adapted):
        save_file({n: t for n, t in held.items() if f".{lost}." not in n}, tmp_path / WEIGHTS)
        with pytest.raises(UserError, match=rf"lacks '{lost}'|holds no update"):
            from_peft(tmp_path, base, contract.task_on(base))


def test_updates_of_the_output_layer_or_of_experts_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, that it saves embeddings too, and of patterns
        theirs("llama", tmp_path / "a", target_modules=["q_proj", "lm_head"])
        theirs("qwen3_moe", tmp_path / "b", target_parameters=["mlp.experts.down_proj"])
    with pytest.raises(UserError, match="updates the output layer 'lm_head'"):
        from_peft(tmp_path / "a", get("llama"), contract.task_on(get("llama")))
    with pytest.raises(UserError, match=r"its rank_pattern|its target_parameters is"):
        from_peft(tmp_path / "b", get("qwen3_moe"), contract.task_on(get("qwen3_moe")))
