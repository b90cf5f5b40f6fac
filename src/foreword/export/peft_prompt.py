"""Soft prompts and prefixes as PEFT keeps them: one tensor, and its sizes in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import Site
from foreword.errors import UserError
from foreword.export.peft_folder import CONFIG, TENSOR, WEIGHTS, read_tensor
from foreword.export.peft_settings import check_known
from foreword.grammar import with_article
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task

TASK_TYPES = {
    "causal": ("CAUSAL_LM", "FEATURE_EXTRACTION"),
    "masked": ("FEATURE_EXTRACTION",),
    "encoder-decoder": ("SEQ_2_SEQ_LM",),
    "encoder": ("FEATURE_EXTRACTION",),
}
"""PEFT's names of what an architecture can be used for; the first one is written."""

_OWN_KEYS: dict[str, dict[str, Any]] = {  # what PEFT writes beside the keys of all kinds
    "PROMPT_TUNING": {
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
    },
    "PREFIX_TUNING": {
        "encoder_hidden_size": None,
        "init_weights": None,
        "prefix_projection": False,
    },
    "CARTRIDGE": {"num_frozen_tokens": 0},
}
_READ = {  # what sizes the tensor, or is about the encoder or the start that it came from
    *("num_attention_heads", "num_layers", "num_transformer_submodules", "num_virtual_tokens"),
    *("token_dim", "num_frozen_tokens", "prefix_projection", "init_weights"),
    *("encoder_hidden_size", "encoder_num_layers", "encoder_dropout"),
    *("encoder_reparameterization_type", "prompt_tuning_init", "prompt_tuning_init_text"),
    *("tokenizer_kwargs", "tokenizer_name_or_path"),
}
_NO_PREFIX = {
    "masked": "on a masked model PEFT counts the positions of a prefix and Foreword does not",
    "encoder": "on an encoder PEFT counts the positions of a prefix and Foreword may not",
    "encoder-decoder": "PEFT gives an encoder-decoder's prefix to the decoder's self-attention "
    "alone and counts its positions; Foreword gives it to all attention and does not",
}


def soft_to_peft(
    prompt: Prompt, injection: Injection, kind: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and the tensor of a soft prompt.

    Raises ValueError, which says why, for what PEFT has no place for.
    """
    embeds = injection.embeds
    if embeds is None or not len(embeds):
        raise ValueError("it holds no virtual token and no prefix")
    placed = len(embeds) - injection.leading
    if placed:
        raise ValueError(
            f"its template places {placed} virtual tokens inside the text, and PEFT's all stand "
            "in front; tune it with a template without [soft]"
        )
    return _with_sizes(kind, embeds, None, None, embeds.shape[1])


def prefix_to_peft(
    prompt: Prompt, injection: Injection, kind: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and the tensor of a prefix.

    Raises ValueError, which says why, for what PEFT has no place for.
    """
    architecture = prompt.backbone["architecture"]
    if architecture != "causal":
        raise ValueError(_NO_PREFIX[architecture])
    length = next(iter(injection.kv.values())).keys.shape[1]
    layers = [injection.kv[name] for name in _by_layer(prompt, length)]
    sizes = {tuple(tensor.shape) for kv in layers for tensor in (kv.keys, kv.values)}
    if len(sizes) > 1:
        raise ValueError(
            f"its keys and values have shapes {', '.join(map(str, sorted(sizes)))}, and PEFT's "
            "have one for all layers"
        )
    heads, _, width = next(iter(sizes))
    if injection.positions != length:
        raise ValueError(
            f"it takes up {injection.positions} positions with {length} keys, and PEFT counts "
            "one for each"
        )
    parts = [part for kv in layers for part in (kv.keys, kv.values)]  # 2 L of (H, n, D)
    tensor = torch.stack(parts).permute(2, 0, 1, 3).reshape(length, -1)
    return _with_sizes(kind, tensor, heads, len(layers), heads * width)


def _with_sizes(
    kind: str, tensor: Tensor, heads: int | None, layers: int | None, width: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settings = {
        "num_attention_heads": heads,
        "num_layers": layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(tensor),
        "token_dim": width,
        **_OWN_KEYS[kind],
    }
    return settings, {TENSOR: tensor.contiguous()}


def _by_layer(prompt: Prompt, length: int) -> list[str]:
    """Order attention modules as the backbone has them, or else by the number in their names.

    Raises UserError where layers are missing: below always, above with a backbone in hand.
    """
    names = list(prompt.injection.kv)
    if prompt.on is not None:
        sites = _sites(prompt.on, "the prompt cannot become a PEFT adapter", length)
        if {site.name for site in sites} != set(names):
            raise ValueError(
                f"it acts on {len(names)} of {len(sites)} layers, and PEFT's prefix on every one"
            )
        return [site.name for site in sites]
    layer = {name: sum(int(p) for p in name.split(".") if p.isdecimal()) for name in names}
    found = sorted(layer.values())
    if found != list(range(len(names))):
        raise ValueError(
            f"it acts on layers {', '.join(map(str, found))}, and PEFT's prefix on every layer "
            "from 0 up; tune it with `first_layer=0`"
        )
    return sorted(names, key=layer.__getitem__)


def soft_from_peft(
    folder: Path, config: Mapping[str, Any], backbone: Backbone, task: Task
) -> Injection:
    """Read a soft prompt: the first rows; PEFT's encoder-decoders save as many again, unused.

    Raises UserError for a tensor that does not fit.
    """
    length = _length(folder, config, backbone, task)
    tensor = read_tensor(folder)
    copies = (1, 2) if backbone.has_two_stacks else (1,)
    _check_shape(folder, tensor, [(length * c, backbone.width) for c in copies], backbone)
    return Injection(embeds=tensor[:length].clone(), leading=length)


def prefix_from_peft(
    folder: Path, config: Mapping[str, Any], backbone: Backbone, task: Task
) -> Injection:
    """Read a prefix; raises UserError for a tensor or a model that it does not fit."""
    if backbone.architecture != "causal":
        _check_task_type(folder, config, backbone)
        reason = _NO_PREFIX[backbone.architecture]
        raise UserError(f"{folder}: cannot be imported: {reason}")
    length = _length(folder, config, backbone, task)
    tensor = read_tensor(folder)
    sites = _sites(backbone, f"{folder}: cannot be imported", length)
    heads, width = sites[0].heads, sites[0].key_width
    _check_shape(folder, tensor, [(length, 2 * len(sites) * heads * width)], backbone)
    parts = tensor.view(length, 2 * len(sites), heads, width).permute(1, 2, 0, 3).contiguous()
    kv = {
        site.name: KV(parts[2 * layer].clone(), parts[2 * layer + 1].clone())
        for layer, site in enumerate(sites)
    }
    return Injection(kv=kv, positions=length)


def _check_task_type(folder: Path, config: Mapping[str, Any], backbone: Backbone) -> None:
    wanted = TASK_TYPES[backbone.architecture]
    if config.get("task_type") not in wanted:
        raise UserError(
            f"{folder}: its task_type is {config.get('task_type')}, and an adapter for "
            f"{backbone.name}, {with_article(backbone.architecture)} model, needs "
            f"{' or '.join(wanted)}"
        )


def _length(folder: Path, config: Mapping[str, Any], backbone: Backbone, task: Task) -> int:
    """Return the number of virtual tokens or positions, once all else is known to fit."""
    _check_task_type(folder, config, backbone)
    check_known(folder, config, _READ)
    placed = task.bind(backbone).virtual
    if placed:
        raise UserError(
            f"the template places {placed} virtual tokens, and those of an adapter stand in "
            "front; give a template without [soft]"
        )
    length = config.get("num_virtual_tokens")
    if type(length) is not int or not 1 <= length < backbone.longest:
        raise UserError(
            f"{folder / CONFIG}: num_virtual_tokens is {length!r}; {backbone.name} takes 1 to "
            f"{backbone.longest - 1}"
        )
    return length


def _sites(backbone: Backbone, where: str, length: int) -> list[Site]:
    """Return a causal model's attention modules, layer by layer, where PEFT reaches the same."""
    sites = backbone.need_sites(("self",))
    layers = backbone.model.config.get_text_config().num_hidden_layers
    if len(sites) != layers:
        raise UserError(
            f"{where}: {backbone.name} attends in {len(sites)} of its {layers} layers, and PEFT's "
            "prefix has keys and values for each"
        )
    if len({(s.heads, width) for s in sites for width in (s.key_width, s.value_width)}) > 1:
        raise UserError(
            f"{where}: keys and values of {backbone.name} differ in size, and PEFT's have one size"
        )
    if backbone.window is not None and length >= backbone.window:
        raise UserError(
            f"{where}: its {length} positions do not fit the sliding window of {backbone.name} "
            f"({backbone.window}), which hides them in PEFT and not in Foreword"
        )
    return sites


def _check_shape(
    folder: Path, tensor: Tensor, wanted: list[tuple[int, int]], backbone: Backbone
) -> None:
    if tuple(tensor.shape) not in wanted:
        raise UserError(
            f"{folder / WEIGHTS}: {TENSOR} has shape {tuple(tensor.shape)}, and {backbone.name} "
            f"with its num_virtual_tokens needs {' or '.join(map(str, wanted))}; load the model "
            "that it was trained on"
        )
