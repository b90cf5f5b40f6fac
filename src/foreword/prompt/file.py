"""Artefacts: what a prompt file must be; everything else is refused with a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.errors import UserError, nearest
from foreword.files import read_tensors
from foreword.injection import PATCH_TENSORS, Activation, Injection
from foreword.tasks.registry import TASKS

SCHEMA = 1
KEY = "foreword"
MAX_HEADER = 16 * 2**20
"""Bytes of header beyond which a file is not believed; real ones have a few thousand."""

_FIELDS = {
    "schema",
    "method",
    "task",
    "backbone",
    "leading",
    "positions",
    "data",
    "seed",
    "versions",
    "scores",
}
_OPTIONAL = {"patches"}


def opened(path: Path) -> tuple[dict[str, Any], Injection]:
    """Read a prompt file's metadata and its injection; raises UserError where it is no such."""
    meta, tensors = read(path)
    if "members" in meta:
        raise UserError(
            f"{path}: is an ensemble of several prompts, and one is needed here; "
            "name one of those that it was made of"
        )
    return meta, checked(str(path), meta, tensors)


def checked(where: str, meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Injection:
    """Return the injection of one prompt; raises UserError where it cannot be one."""
    check_keys(where, meta, tensors)
    injection = Injection.from_tensors(tensors, meta)
    check_values(where, injection)
    return injection


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read metadata and tensors, refusing what safetensors would only hint at."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            first = file.read(1)
    except IsADirectoryError:
        raise UserError(
            f"{path}: is a folder, not a prompt; foreword import reads PEFT folders"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    header = int.from_bytes(start, "little")
    if len(start) < 8 or first != b"{":
        raise UserError(f"{path}: is not a safetensors file")
    if header > MAX_HEADER:
        raise UserError(f"{path}: its header claims {header} bytes; not a prompt, or damaged")
    if header + 8 > size:
        raise UserError(
            f"{path}: is cut off ({size} bytes, its header alone has {header}); copy it again"
        )
    try:
        with safe_open(str(path), "pt") as file:
            raw = (file.metadata() or {}).get(KEY)
            tensors = {} if raw is None else read_tensors(file)  # of a whole model, nothing is read
    except SafetensorError as error:
        raise UserError(f"{path}: is cut off or damaged ({error}); copy it again") from None
    if raw is None:
        raise UserError(f"{path}: a safetensors file, but no Foreword prompt (no '{KEY}' metadata)")
    try:
        meta = json.loads(raw)
    except (ValueError, RecursionError) as error:  # also numbers too long, nesting too deep
        raise UserError(f"{path}: its metadata is not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise UserError(f"{path}: its metadata is not a JSON object")
    return meta, tensors


def check_keys(where: str, meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError for missing or unknown metadata and tensors."""
    check_fields(where, meta, _FIELDS, _OPTIONAL)
    _check_kinds(where, meta)
    for name in tensors:
        other = _partner(where, name, meta.get("patches", {}))
        if other is not None and other not in tensors:
            raise UserError(f"{where}: tensor '{name}' stands without '{other}'")
    for place in meta.get("patches", {}):
        up = tensors.get(f"patches.{place}.up")
        if up is None:
            raise UserError(f"{where}: has no tensor 'patches.{place}.up'")
        if (up.dim() > 1) != (f"patches.{place}.down" in tensors):
            raise UserError(
                f"{where}: tensor 'patches.{place}.up' has shape {tuple(up.shape)}; it is a matrix "
                "with 'down', and a vector without"
            )
    if not tensors:
        raise UserError(f"{where}: holds no tensor")


def check_fields(
    where: str, meta: Mapping[str, Any], needed: Set[str], optional: Set[str] = frozenset()
) -> None:
    """Raise UserError for another schema, and for metadata that is missing or unknown."""
    if meta.get("schema") != SCHEMA:
        raise UserError(
            f"{where}: has schema version {meta.get('schema')}, and this Foreword reads {SCHEMA}; "
            "use the version that wrote it"
        )
    for missing in sorted(needed - set(meta)):
        raise UserError(f"{where}: its metadata lacks '{missing}'")
    for unknown in sorted(set(meta) - needed - optional):
        raise UserError(
            f"{where}: unknown metadata '{unknown}'; {nearest(unknown, sorted(needed))}"
        )


def _partner(where: str, name: str, patches: Mapping[str, Any]) -> str | None:
    """Return the tensor without which this one is of no use; raises UserError for unknown ones."""
    if name == "embeds" or re.fullmatch(r"weights\..+", name):
        return None
    if name in ("head.weight", "head.bias"):
        return "head.bias" if name == "head.weight" else "head.weight"
    if site := re.fullmatch(r"kv\.(.+)\.(keys|values)", name):
        return f"kv.{site[1]}.{'values' if site[2] == 'keys' else 'keys'}"
    patch = re.fullmatch(r"patches\.(.+\.\d+)\.(\w+)", name)
    if patch is None or patch[1] not in patches or patch[2] not in PATCH_TENSORS:
        raise UserError(f"{where}: unknown tensor '{name}'")
    other = {"up": None, "down_bias": "down"}.get(patch[2], "up")
    return None if other is None else f"patches.{patch[1]}.{other}"


def _check_kinds(where: str, meta: Mapping[str, Any]) -> None:
    for name in ("leading", "positions"):
        if not isinstance(meta[name], int) or isinstance(meta[name], bool) or meta[name] < 0:
            raise UserError(f"{where}: metadata '{name}' is {meta[name]!r}, not a count")
    for name in ("method", "task", "backbone", "data", "versions", "scores"):
        if not isinstance(meta[name], dict):
            raise UserError(f"{where}: metadata '{name}' is not an object")
    for place, about in _patches(where, meta).items():
        if not _is_patch(about):
            raise UserError(f"{where}: metadata of patch '{place}' is {about!r}; not a patch")
    for name in ("name", "architecture", "fingerprint"):
        if not isinstance(meta["backbone"].get(name), str):
            raise UserError(f"{where}: metadata 'backbone' lacks '{name}'")
    kind = meta["task"].get("name")
    if not isinstance(kind, str) or kind not in TASKS:
        raise UserError(f"{where}: unknown task '{kind}'; {nearest(str(kind), TASKS)}")


def _patches(where: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    found = meta.get("patches", {})
    if not isinstance(found, dict):
        raise UserError(f"{where}: metadata 'patches' is not an object")
    return found


def _is_patch(about: Any) -> bool:
    """Whether these are the settings of a patch, as :meth:`Patch.settings` returns them."""
    if not isinstance(about, dict) or about.keys() - {"adds_to"} != {"reads", "activation"}:
        return False
    known = about["activation"] in get_args(Activation) and about.get("adds_to", "input") == "input"
    return known and isinstance(about["reads"], str | None)


def check_values(where: str, injection: Injection) -> None:
    """Raise UserError for tensors that are not float32, not finite, or of no possible shape."""
    for name, tensor in injection.tensors():
        if tensor.dtype != torch.float32:
            raise UserError(f"{where}: tensor '{name}' holds {tensor.dtype}, not float32")
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{where}: tensor '{name}' holds NaN or Inf; the prompt is unusable")
        ranks = _ranks(name)
        if ranks and tensor.dim() not in ranks:
            raise UserError(
                f"{where}: tensor '{name}' has shape {tuple(tensor.shape)}, not "
                f"{' or '.join(map(str, ranks))} dimensions"
            )
    for site, kv in injection.kv.items():
        if kv.keys.shape[:2] != kv.values.shape[:2]:
            raise UserError(
                f"{where}: keys and values of '{site}' have shapes {tuple(kv.keys.shape)} and "
                f"{tuple(kv.values.shape)}; heads and lengths must agree"
            )
    if injection.leading > (0 if injection.embeds is None else len(injection.embeds)):
        raise UserError(f"{where}: more leading virtual tokens than there are embeddings")


def _ranks(name: str) -> tuple[int, ...]:
    """Return how many dimensions a tensor can have; nothing where it can have any number."""
    kind, last = name.partition(".")[0], name.rpartition(".")[2]
    if kind == "weights":
        return ()
    if kind == "kv":
        return (3,)
    if kind == "patches" and last == "up":
        return (1, 2)
    return (1,) if last in ("bias", "down_bias", "up_bias", "gate") else (2,)


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
