"""Rescaled states as PEFT folders: the real PEFT's logits both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_peft_lora import CONFIG, TYPES, WEIGHTS, agree, prompt
from torch import Tensor

import contract
from foreword.errors import UserError
from foreword.export.peft import from_peft, to_peft
from foreword.injection import Injection
from foreword.methods.ia3 import IA3
from foreword.methods.lora import Lora
from foreword.methods.parts.several import Several
from oracles import get
from plain import twin

# PEFT 0.21 asks for an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

TARGETS = {
    "llama": (["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    "gpt2": (["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    "bert": (["key", "value", "output.dense"], ["output.dense"]),
}


def theirs(name: str, folder: Path, targets: list[str], fed: list[str]) -> Any:
    """A PEFT adapter with random numbers, saved."""
    config = peft.IA3Config(
        task_type=TYPES[get(name).architecture],
        target_modules=targets,
        feedforward_modules=fed,
        fan_in_fan_out=name == "gpt2",
    )
    made = peft.get_peft_model(twin(get(name)), config).eval()
    noise = torch.Generator().manual_seed(0)
    for key, tensor in made.named_parameters():
        if "ia3_l" in key:
            tensor.data.copy_(1 + torch.randn(tensor.shape, generator=noise) * 0.3)
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_a_folder_of_ours_loads_in_peft_and_comes_back(name: str, tmp_path: Path) -> None:
    base = get(name)
    injection = contract.trained(IA3(), base)()
    folder = to_peft(prompt(base, injection), tmp_path / "F")
    agree(base, injection, peft.PeftModel.from_pretrained(twin(base), str(folder)))
    again = from_peft(folder, base, contract.task_on(base)).injection
    assert again.settings() == injection.settings()
    read = dict(again.tensors())
    for key, kept in injection.tensors():
        torch.testing.assert_close(read[key], kept, rtol=1e-6, atol=1e-6)  # 1 + x, less 1, rounds


@pytest.mark.parametrize("name", TARGETS)
def test_a_folder_of_theirs_runs_the_same_here_and_goes_back(name: str, tmp_path: Path) -> None:
    base = get(name)
    model = theirs(name, tmp_path / "theirs", *TARGETS[name])
    found = from_peft(tmp_path / "theirs", base, contract.task_on(base))
    agree(base, found.injection, model)
    assert found.method["name"] == "ia3"
    back = to_peft(found, tmp_path / "back")
    one, two = (load_file(folder / WEIGHTS) for folder in (tmp_path / "theirs", back))
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=0, atol=1e-7)


def mapped(found: Injection, **changes: Any) -> Injection:
    return replace(
        found, patches={m: (replace(own[0], **changes),) for m, own in found.patches.items()}
    )


def test_what_only_foreword_can_rescale_does_not_go_out(tmp_path: Path) -> None:
    base = get("llama")
    ia3 = contract.trained(IA3(), base)()
    both = contract.trained(Several((IA3(), Lora(rank=2, targets=("q_proj",)))), base)()
    for injection, reason in [
        (ia3.joined(ia3), "has more than one vector"),
        (mapped(ia3, activation="tanh"), "has more than one vector|rescales"),
        (mapped(ia3, up_bias=torch.zeros(4)), "has a gate or a bias"),
        (both, "it has low-rank updates and rescaled states, and an adapter holds one"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            to_peft(prompt(base, injection), tmp_path / "F")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "F").exists()


K = "base_model.model.model.layers.0.self_attn.k_proj.ia3_l"
HEAD = "base_model.model.lm_head.ia3_l"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {**t, K: torch.ones(16)}, r"has shape \(16,\), and llama needs \(1, 32\) or"),
        (lambda t: {**t, K: torch.ones(1, 16)}, r"has shape \(1, 16\)"),
        (lambda t: {**t, HEAD: torch.ones(160, 1)}, "rescales the output layer 'lm_head'"),
        (lambda t: {"x": torch.ones(1)}, "holds 'x', which is no vector"),
        (lambda t: {}, "holds no vector"),
        (
            lambda t: {n: v for n, v in t.items() if n != K},
            "lacks 'model.layers.0.self_attn.k_proj', one of the target_modules",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: Any, reason: str, tmp_path: Path) -> None:
    theirs("llama", tmp_path, *TARGETS["llama"])
    held: dict[str, Tensor] = load_file(tmp_path / WEIGHTS)
    save_file(change(held), tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=reason):
        from_peft(tmp_path, get("llama"), contract.task_on(get("llama")))


def test_settings_from_elsewhere_are_refused(tmp_path: Path) -> None:
    theirs("llama", tmp_path, *TARGETS["llama"])
    config = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    (tmp_path / CONFIG).write_text(json.dumps({**config, "modules_to_save": ["x"]}), "utf-8")
    with pytest.raises(UserError, match=r"its modules_to_save is \['x'\], which cannot"):
        from_peft(tmp_path, get("llama"), contract.task_on(get("llama")))
