"""Rescaled states as PEFT's IA3 keeps them: one vector a linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import Conv1D

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.projections import is_linear, linear_sizes
from foreword.backbone.inside.views import output_embeddings
from foreword.errors import UserError
from foreword.export.peft_folder import read_tensors
from foreword.export.peft_settings import check_known, check_whole
from foreword.injection import Injection, Patch
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task

_NAME = "base_model.model.{}.ia3_l"
_READ = {  # what is read from the tensors, or matters in training alone
    *("target_modules", "exclude_modules", "feedforward_modules"),
    *("fan_in_fan_out", "init_ia3_weights"),
}


def ia3_to_peft(
    prompt: Prompt, injection: Injection, kind: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and tensors: l (1, in) of what a layer reads, (out, 1) of what it gives.

    Raises ValueError, which says why, for patches that do more than rescale.
    """
    tensors: dict[str, Tensor] = {}
    for module, own in injection.patches.items():
        plain = [Patch(patch.up, adds_to=patch.adds_to).settings() for patch in own]
        if len(own) > 1 or [patch.settings() for patch in own] != plain:
            raise ValueError(f"'{module}' has more than one vector that rescales it")
        if own[0].parts().keys() != {"up"}:
            raise ValueError(f"the vector of '{module}' has a gate or a bias, and PEFT's have none")
        shape = (1, -1) if own[0].adds_to == "input" else (-1, 1)
        tensors[_NAME.format(module)] = (1 + own[0].up).view(shape)
    modules = {} if prompt.on is None else dict(prompt.on.model.named_modules())
    config = {
        "exclude_modules": None,
        "fan_in_fan_out": all(isinstance(modules.get(m), Conv1D) for m in injection.patches),
        "feedforward_modules": [
            name for name, own in injection.patches.items() if own[0].adds_to == "input"
        ],
        "init_ia3_weights": True,
        "target_modules": list(injection.patches),
    }
    return config, tensors


def ia3_from_peft(
    folder: Path, config: Mapping[str, Any], backbone: Backbone, task: Task
) -> Injection:
    """Return the vectors, less one; raises UserError for what does not fit the model."""
    check_known(folder, config, _READ)
    last = output_embeddings(backbone.model)
    rest = read_tensors(folder)
    patches: dict[str, tuple[Patch, ...]] = {}
    linear = {n: module for n, module in backbone.model.named_modules() if is_linear(module)}
    for name, module in linear.items():
        if _NAME.format(name) not in rest:
            continue
        if module is last:
            raise UserError(f"{folder}: rescales the output layer '{name}', which stays as it is")
        vector = rest.pop(_NAME.format(name))
        inputs, outputs = linear_sizes(module)
        if tuple(vector.shape) not in ((1, inputs), (outputs, 1)):
            raise UserError(
                f"{folder}: the vector of '{name}' has shape {tuple(vector.shape)}, and "
                f"{backbone.name} needs (1, {inputs}) or ({outputs}, 1); load the model that it "
                "was trained on"
            )
        side: Literal["input", "output"] = (
            "input" if tuple(vector.shape) == (1, inputs) else "output"
        )
        patches[name] = (Patch(vector.flatten() - 1, adds_to=side),)
    if rest:
        raise UserError(
            f"{folder}: holds '{next(iter(rest))}', which is no vector of a linear layer of "
            f"{backbone.name}"
        )
    if not patches:
        raise UserError(f"{folder}: holds no vector")
    check_whole(folder, config, (name for name in linear if linear[name] is not last), patches)
    return Injection(patches=patches)
