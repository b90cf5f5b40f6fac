"""Prompts to and from PEFT adapter folders, in the layout of PEFT 0.21 and without PEFT itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.inside.attention_sites import Site
from foreword.errors import UserError
from foreword.export.peft_folder import (
    CONFIG,
    TENSOR,
    WEIGHTS,
    read_config,
    read_tensor,
    read_tensors,
    write_adapter,
)
from foreword.export.peft_lora import lora_in, lora_out
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task

_SOFT = ("PROMPT_TUNING", "P_TUNING")
_PREFIX = ("PREFIX_TUNING", "CARTRIDGE")
_LORA = "LORA"
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
_TASK_TYPES = {
    "causal": ("CAUSAL_LM", "FEATURE_EXTRACTION"),
    "masked": ("FEATURE_EXTRACTION",),
    "encoder-decoder": ("SEQ_2_SEQ_LM",),
}
_NO_PREFIX = {
    "masked": "on a masked model PEFT counts the positions of a prefix and Foreword does not",
    "encoder-decoder": "PEFT gives an encoder-decoder's prefix to the decoder's self-attention "
    "alone and counts its positions; Foreword gives it to all attention and does not",
}

# Out -----------------------------------------------------------------------------------------


def to_peft(prompt: Prompt, folder: str | Path, *, kind: str | None = None) -> Path:
    """Write a prompt as a PEFT adapter folder, whole or not at all, and return the folder.

    Leading virtual tokens become PROMPT_TUNING: ``prompt_embeddings`` (n, width). The prefix of a
    causal model becomes PREFIX_TUNING, or CARTRIDGE where ``kind`` says so: ``prompt_embeddings``
    (n, 2 L H D) in the order K_0, V_0, K_1, V_1 ..., keys after the rotary embedding. With a
    backbone in hand its layers are compared; without, the numbers in the names of the attention
    modules tell the layers. Low-rank updates become LORA.

    Raises UserError for what PEFT cannot represent exactly, and where the folder holds something.
    """
    injection = prompt.injection.map(lambda tensor: tensor.detach().to("cpu", torch.float32))
    made, own, tensors = _out(prompt, injection, kind)
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": prompt.backbone["name"],
        "inference_mode": True,
        "modules_to_save": None,
        "peft_type": made,
        "peft_version": None,  # PEFT did not write this; on reading it fills in its own
        "revision": None,
        "task_type": _TASK_TYPES[prompt.backbone["architecture"]][0],
        **own,
    }
    return write_adapter(Path(folder), config, tensors)


def _out(
    prompt: Prompt, injection: Injection, kind: str | None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return the type that a prompt becomes, with that type's settings and tensors."""
    if injection.weights:
        raise _cannot("it holds all weights of the model")
    if injection.head is not None:
        raise _cannot("it holds a head over classes, which PEFT would look for in the model")
    kinds = {"virtual tokens": injection.embeds is not None, "a prefix": bool(injection.kv)}
    kinds["low-rank updates"] = bool(injection.patches)
    held = [name for name, there in kinds.items() if there]
    if len(held) > 1:
        raise _cannot(f"it has {' and '.join(held)}, and an adapter holds one of the two")
    able = (_LORA,) if injection.patches else _PREFIX if injection.kv else _SOFT[:1]
    made = able[0] if kind is None else kind
    if made not in able:
        raise UserError(f"kind '{kind}': this prompt can become {' or '.join(able)}")
    if injection.patches:
        try:
            return made, *lora_out(injection.patches, prompt.on)
        except ValueError as error:
            raise _cannot(str(error)) from None
    shape, tensor = _prefix_out(prompt, injection) if injection.kv else _soft_out(injection)
    sizes = {"num_transformer_submodules": 1, "num_virtual_tokens": len(tensor)}
    return made, {**sizes, **shape, **_OWN_KEYS[made]}, {TENSOR: tensor.contiguous()}


def _cannot(reason: str) -> UserError:
    return UserError(f"the prompt cannot become a PEFT adapter: {reason}")


def _soft_out(injection: Injection) -> tuple[Mapping[str, int | None], Tensor]:
    embeds = injection.embeds
    if embeds is None or not len(embeds):
        raise _cannot("it holds no virtual token and no prefix")
    placed = len(embeds) - injection.leading
    if placed:
        raise _cannot(
            f"its template places {placed} virtual tokens inside the text, and PEFT's all stand "
            "in front; tune it with a template without [soft]"
        )
    return {"num_attention_heads": None, "num_layers": None, "token_dim": embeds.shape[1]}, embeds


def _prefix_out(prompt: Prompt, injection: Injection) -> tuple[Mapping[str, int | None], Tensor]:
    architecture = prompt.backbone["architecture"]
    if architecture != "causal":
        raise _cannot(_NO_PREFIX[architecture])
    length = next(iter(injection.kv.values())).keys.shape[1]
    layers = [injection.kv[name] for name in _by_layer(prompt, length)]
    sizes = {tuple(tensor.shape) for kv in layers for tensor in (kv.keys, kv.values)}
    if len(sizes) > 1:
        raise _cannot(
            f"its keys and values have shapes {', '.join(map(str, sorted(sizes)))}, and PEFT's "
            "have one for all layers"
        )
    heads, _, width = next(iter(sizes))
    if injection.positions != length:
        raise _cannot(
            f"it takes up {injection.positions} positions with {length} keys, and PEFT counts "
            "one for each"
        )
    parts = [part for kv in layers for part in (kv.keys, kv.values)]  # 2 L of (H, n, D)
    tensor = torch.stack(parts).permute(2, 0, 1, 3).reshape(length, -1)
    shape = {"num_attention_heads": heads, "num_layers": len(layers), "token_dim": heads * width}
    return shape, tensor


def _by_layer(prompt: Prompt, length: int) -> list[str]:
    """Order attention modules as the backbone has them, or else by the number in their names.

    Raises UserError where layers are missing: below always, above with a backbone in hand.
    """
    names = list(prompt.injection.kv)
    if prompt.on is not None:
        sites = _sites(prompt.on, "the prompt cannot become a PEFT adapter", length)
        if {site.name for site in sites} != set(names):
            raise _cannot(
                f"it acts on {len(names)} of {len(sites)} layers, and PEFT's prefix on every one"
            )
        return [site.name for site in sites]
    layer = {name: sum(int(p) for p in name.split(".") if p.isdecimal()) for name in names}
    found = sorted(layer.values())
    if found != list(range(len(names))):
        raise _cannot(
            f"it acts on layers {', '.join(map(str, found))}, and PEFT's prefix on every layer "
            "from 0 up; tune it with --first-layer 0"
        )
    return sorted(names, key=layer.__getitem__)


# In ------------------------------------------------------------------------------------------


def from_peft(folder: str | Path, backbone: Backbone, task: Task) -> Prompt:
    """Read a PEFT adapter folder as a prompt for ``task``, on ``backbone``.

    Reads PROMPT_TUNING, P_TUNING, PREFIX_TUNING, CARTRIDGE and LORA. PEFT saves what encoders
    and projections of prompts made, so that those need nothing but one tensor. The prompt answers
    as the adapter does; the folder does not tell whether ``backbone`` has the weights of the model
    it was trained on, only names and sizes are compared.

    Raises UserError for other kinds, for a missing, damaged or unfit file, and for what
    Foreword would run differently.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = config.get("peft_type")
    known = (*_SOFT, *_PREFIX, _LORA)
    if kind not in known:
        raise UserError(
            f"{folder}: is a PEFT adapter of type {kind}; {', '.join(known)} can be imported"
        )
    if kind == _LORA:
        injection = lora_in(folder, config, read_tensors(folder), backbone)
    else:
        injection = _prompt_in(folder, config, backbone, task)
    version = config.get("peft_version")
    return Prompt(
        injection=injection,
        task=task,
        backbone={
            "name": backbone.name,
            "architecture": backbone.architecture,
            "fingerprint": backbone.fingerprint,
        },
        method={
            "name": "lora" if kind == _LORA else "soft" if kind in _SOFT else "prefix",
            "imported_from": f"peft {kind}",
            "base_model": config.get("base_model_name_or_path"),
        },
        versions={"peft": str(version)} if version else {},
        on=backbone,
    )


def _prompt_in(
    folder: Path, config: Mapping[str, Any], backbone: Backbone, task: Task
) -> Injection:
    kind = config["peft_type"]
    wanted = _TASK_TYPES[backbone.architecture]
    if config.get("task_type") not in wanted:
        raise UserError(
            f"{folder}: its task_type is {config.get('task_type')}, and an adapter for "
            f"{backbone.name}, a {backbone.architecture} model, needs {' or '.join(wanted)}"
        )
    if kind in _PREFIX and backbone.architecture != "causal":
        raise UserError(f"{folder}: cannot be imported: {_NO_PREFIX[backbone.architecture]}")
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
    fill = _soft_in if kind in _SOFT else _prefix_in
    return fill(folder, read_tensor(folder), length, backbone)


def _soft_in(folder: Path, tensor: Tensor, length: int, backbone: Backbone) -> Injection:
    """Take the first ``length`` rows: PEFT's encoder-decoders save as many again, unused."""
    copies = (1, 2) if backbone.architecture == "encoder-decoder" else (1,)
    _check_shape(folder, tensor, [(length * c, backbone.width) for c in copies], backbone)
    return Injection(embeds=tensor[:length].clone(), leading=length)


def _prefix_in(folder: Path, tensor: Tensor, length: int, backbone: Backbone) -> Injection:
    sites = _sites(backbone, f"{folder}: cannot be imported", length)
    heads, width = sites[0].heads, sites[0].key_width
    _check_shape(folder, tensor, [(length, 2 * len(sites) * heads * width)], backbone)
    parts = tensor.view(length, 2 * len(sites), heads, width).permute(1, 2, 0, 3).contiguous()
    kv = {
        site.name: KV(parts[2 * layer].clone(), parts[2 * layer + 1].clone())
        for layer, site in enumerate(sites)
    }
    return Injection(kv=kv, positions=length)


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
