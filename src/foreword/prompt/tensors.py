"""The tensors of a prompt file: read into torch's memory, written, and held against a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError
from foreword.files import write_whole
from foreword.injection import Injection
from foreword.prompt.file import PromptFile, read_prompt
from foreword.prompt.schema import KEY
from foreword.prompt.storage import Store, pack, unpack


def opened(path: Path) -> tuple[Mapping[str, Any], Injection]:
    """Read a prompt file's metadata and its injection; raises UserError where it is no such."""
    file = read_prompt(path)
    return file.meta, injection_of(file)


def injection_of(file: PromptFile) -> Injection:
    """Return the injection of one prompt, in memory of torch's own, as a trained one lies."""
    return file.injection.map(torch.tensor)


def write_tensors(
    path: Path, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], store: Store = "float32"
) -> Path:
    """Write tensors (``storage.py``), and metadata as JSON, in one safetensors file."""
    text = json.dumps(meta, ensure_ascii=False, sort_keys=True)
    return write_whole(path, save(pack(tensors, store), metadata={KEY: text}))


def as_stored(injection: Injection, store: Store) -> Injection:
    """Return an injection as it is read again from a file that keeps its numbers so."""
    packed = pack(dict(injection.tensors()), store)
    arrays = unpack("the prompt", {name: tensor.numpy() for name, tensor in packed.items()})
    read = {name: torch.tensor(array) for name, array in arrays.items()}
    return Injection.from_tensors(read, injection.settings())


def check_fit(where: str, injection: Injection, backbone: Backbone) -> None:
    """Raise UserError where a tensor has not the shape that the backbone needs."""
    embeds = injection.embeds
    if embeds is not None and (embeds.dim() != 2 or embeds.shape[1] != backbone.width):
        raise UserError(
            f"{where}: embeds have shape {tuple(embeds.shape)}, and {backbone.name} needs "
            f"(n, {backbone.width})"
        )
    for name, kv in injection.kv.items():
        site = backbone.sites.get(name)
        if site is None:
            raise UserError(
                f"{where}: {backbone.name} has no attention module '{name}' for its prefix"
            )
        length = kv.keys.shape[1] if kv.keys.dim() == 3 else -1
        for found, width in ((kv.keys, site.key_width), (kv.values, site.value_width)):
            if tuple(found.shape) != (site.heads, length, width):
                raise UserError(
                    f"{where}: {name} has shape {tuple(found.shape)}, and {backbone.name} needs "
                    f"({site.heads}, n, {width})"
                )
    for name, tensor in injection.weights.items():
        own = dict(backbone.model.named_parameters()).get(name)
        if own is None or own.shape != tensor.shape:
            raise UserError(
                f"{where}: weights of '{name}' have shape {tuple(tensor.shape)}, and "
                f"{backbone.name} has {'none' if own is None else tuple(own.shape)}"
            )
    head = injection.head
    if head is not None and head.weight.shape != (len(head.bias), backbone.state_width):
        raise UserError(
            f"{where}: the head has shape {tuple(head.weight.shape)}, and {backbone.name} needs "
            f"({len(head.bias)}, {backbone.state_width})"
        )
    if injection.patches:
        _try(where, injection, backbone)


def _try(where: str, injection: Injection, backbone: Backbone) -> None:
    """Run two tokens under the patches alone: what does not fit a module cannot be run."""
    patches = Injection(patches=injection.patches)
    try:
        with torch.no_grad():
            backbone.with_changes(patches).states([Example((3, 1), 2, ((),), ((0, -1),))], patches)
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise UserError(
            f"{where}: its patches do not fit the modules of {backbone.name} ({why})"
        ) from None
