"""Low-rank updates as PEFT's LORA keeps them: two tensors a module, and a scale in the settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

_NAME = "base_model.model.{}.lora_{}.weight"
_READ = {  # what decides about an update, is read from the tensors, or matters in training alone
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "fan_in_fan_out", "bias", "init_lora_weights", "eva_config"),
    *("megatron_core", "qalora_group_size"),
}
_INITS = (True, False, "gaussian", "orthogonal", "eva")  # the others change the model's weights


def lora_to_peft(
    prompt: Prompt, injection: Injection, kind: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and tensors: A (r, in) and B (out, r), with alpha = r, so that s = 1.

    Raises ValueError, which says why, for patches that are no low-rank updates.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module, own in injection.patches.items():
        if len(own) > 1:
            raise ValueError(f"'{module}' has {len(own)} patches, and LORA one")
        down = own[0].down
        if own[0].reads != module or own[0].activation != "identity" or down is None:
            raise ValueError(f"'{module}' has an adapter, and PEFT keeps low-rank updates alone")
        if own[0].gate is not None:
            raise ValueError(f"the update of '{module}' has a gate, and PEFT's have none")
        if own[0].down_bias is not None or own[0].up_bias is not None:
            raise ValueError(f"the update of '{module}' has a bias of its own")
        ranks[module] = len(down)
        tensors[_NAME.format(module, "A")] = down.contiguous()
        tensors[_NAME.format(module, "B")] = own[0].up.contiguous()
    most = max(ranks.values())
    others = {re.escape(module): rank for module, rank in ranks.items() if rank != most}
    modules = {} if prompt.on is None else dict(prompt.on.model.named_modules())
    config = {
        "alpha_pattern": others,
        "bias": "none",
        "fan_in_fan_out": all(isinstance(modules.get(module), Conv1D) for module in ranks),
        "init_lora_weights": True,
        "lora_alpha": most,
        "lora_dropout": 0.0,
        "r": most,
        "rank_pattern": others,
        "target_modules": list(ranks),
        "use_rslora": False,
    }
    return config, tensors


def lora_from_peft(
    folder: Path, config: Mapping[str, Any], backbone: Backbone, task: Task
) -> Injection:
    """Return the updates with their scale in B; raises UserError for what has another meaning."""
    _check(folder, config)
    last = output_embeddings(backbone.model)
    rest = read_tensors(folder)
    patches: dict[str, tuple[Patch, ...]] = {}
    linear = {n: module for n, module in backbone.model.named_modules() if is_linear(module)}
    for name, module in linear.items():
        if _NAME.format(name, "A") not in rest:
            continue
        if module is last:
            raise UserError(f"{folder}: updates the output layer '{name}', which stays as it is")
        down, up = (rest.pop(_NAME.format(name, which), None) for which in "AB")
        if down is None or up is None:
            raise UserError(f"{folder}: of the update of '{name}' one half is missing")
        rank, (inputs, outputs) = down.shape[0] if down.dim() else 0, linear_sizes(module)
        if (*down.shape, *up.shape) != (rank, inputs, outputs, rank):
            raise UserError(
                f"{folder}: the update of '{name}' has shapes {tuple(down.shape)} and "
                f"{tuple(up.shape)}, and {backbone.name} needs (r, {inputs}) and ({outputs}, r); "
                "load the model that it was trained on"
            )
        planned = _of_module(folder, config, "rank_pattern", name, config.get("r", 8))
        if planned != rank:
            raise UserError(
                f"{folder}: the update of '{name}' is of rank {rank}, and of {planned:g} by its "
                "settings; copy both files of one adapter"
            )
        up = up * _scale(folder, config, name, rank)
        patches[name] = (Patch(down=down, up=up, reads=name),)
    if rest:
        raise UserError(
            f"{folder}: holds '{next(iter(rest))}', which is no update of a linear layer of "
            f"{backbone.name}"
        )
    if not patches:
        raise UserError(f"{folder}: holds no update")
    check_whole(folder, config, (name for name in linear if linear[name] is not last), patches)
    return Injection(patches=patches)


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    check_known(folder, config, _READ)
    if config.get("bias", "none") != "none":
        raise UserError(f"{folder}: also trains biases (bias {config['bias']!r}); not imported")
    if config.get("init_lora_weights", True) not in _INITS:
        raise UserError(
            f"{folder}: its start '{config['init_lora_weights']}' changed the model's own weights; "
            "convert it with PEFT to plain LORA first"
        )


def _scale(folder: Path, config: Mapping[str, Any], name: str, rank: int) -> float:
    """Return alpha / r or alpha / sqrt(r)."""
    alpha = _of_module(folder, config, "alpha_pattern", name, config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_module(
    folder: Path, config: Mapping[str, Any], patterns: str, name: str, usual: Any
) -> float:
    """Return a module's number: that of the first pattern which its name matches, or the usual."""
    try:
        own = (config.get(patterns) or {}).items()
        return float(next((v for p, v in own if re.match(rf"(.*\.)?({p})$", name)), usual))
    except (re.error, TypeError, ValueError, AttributeError):
        what = {"alpha_pattern": "lora_alpha", "rank_pattern": "r"}[patterns]
        raise UserError(f"{folder}: its {what} or {patterns} is damaged") from None
