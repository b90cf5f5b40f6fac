"""What the metadata and the tensors of a prompt file must be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any, get_args

import numpy as np

from foreword.errors import UserError, nearest
from foreword.injection import PATCH_TENSORS, Activation, Injection
from foreword.prompt.schema import SCHEMA
from foreword.tasks.registry import TASKS

Array = Any  # of numpy

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
_OPTIONAL = {"bos", "patches"}
ARCHITECTURES = ("causal", "masked", "encoder-decoder", "encoder")
"""Those of :mod:`foreword.backbone.load.folder`, which takes a second to import."""


def check_keys(where: str, meta: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
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
        if (up.ndim > 1) != (f"patches.{place}.down" in tensors):
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
    if name in ("head.weight", "head.bias", "head.scale"):
        return "head.bias" if name == "head.weight" else "head.weight"
    if site := re.fullmatch(r"kv\.(.+)\.(keys|values)", name):
        return f"kv.{site[1]}.{'values' if site[2] == 'keys' else 'keys'}"
    patch = re.fullmatch(r"patches\.(.+\.\d+)\.(\w+)", name)
    if patch is None or patch[1] not in patches or patch[2] not in PATCH_TENSORS:
        raise UserError(f"{where}: unknown tensor '{name}'")
    other = {"up": None, "down_bias": "down"}.get(patch[2], "up")
    return None if other is None else f"patches.{patch[1]}.{other}"


def _check_kinds(where: str, meta: Mapping[str, Any]) -> None:
    for name in ("leading", "positions", "bos"):
        if type(count := meta.get(name, 0)) is not int or count < 0:
            raise UserError(f"{where}: metadata '{name}' is {count!r}, not a count")
    for name in ("method", "task", "backbone", "data", "versions", "scores"):
        if not isinstance(meta[name], dict):
            raise UserError(f"{where}: metadata '{name}' is not an object")
    for place, about in _patches(where, meta).items():
        if not _is_patch(about):
            raise UserError(f"{where}: metadata of patch '{place}' is {about!r}; not a patch")
    for name in ("name", "architecture", "fingerprint"):
        if not isinstance(meta["backbone"].get(name), str):
            raise UserError(f"{where}: metadata 'backbone' lacks '{name}'")
    if (found := meta["backbone"]["architecture"]) not in ARCHITECTURES:
        raise UserError(f"{where}: unknown architecture '{found}'; {nearest(found, ARCHITECTURES)}")
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
        array: Array = tensor
        if array.dtype != np.float32:
            raise UserError(f"{where}: tensor '{name}' holds {tensor.dtype}, not float32")
        if not np.isfinite(array).all():
            raise UserError(f"{where}: tensor '{name}' holds NaN or Inf; the prompt is unusable")
        ranks = _ranks(name)
        if ranks and tensor.ndim not in ranks:
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
    if name == "head.scale":
        return (0,)
    if kind == "weights":
        return ()
    if kind == "kv":
        return (3,)
    if kind == "patches" and last == "up":
        return (1, 2)
    return (1,) if last in ("bias", "down_bias", "up_bias", "gate") else (2,)
