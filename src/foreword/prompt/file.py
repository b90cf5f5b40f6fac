"""Prompt files: what they must be, and what they say; everything else is refused with a reason.

Here tensors are arrays of numpy, and a task is its settings, so that a file can be looked at
without the libraries that run it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from foreword.config.values import typed
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.prompt.checks import Array, check_fields, check_keys, check_values
from foreword.prompt.schema import KEY, LARGE
from foreword.prompt.storage import unpack
from foreword.prompt.texts import texts_in
from foreword.tasks.registry import TASKS

MAX_HEADER = 16 * 2**20
"""Bytes of header beyond which a file is not believed; real ones have a few thousand."""

NUMBERS = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Types of numbers in safetensors files that numpy has too."""


@dataclass(frozen=True, eq=False)
class PromptFile:
    """What one prompt's file holds, or an ensemble's, which has ``members``."""

    where: str
    meta: Mapping[str, Any]
    arrays: Mapping[str, Array]
    members: tuple[PromptFile, ...] = ()

    @cached_property
    def injection(self) -> Injection:
        """The injection of one prompt, of arrays."""
        return Injection.from_tensors(self.arrays, self.meta)

    @cached_property
    def task(self) -> dict[str, Any]:
        """The settings of the task with its name, of an ensemble that of its first member.

        Those that a file of an older version lacks have their defaults. Raises UserError for
        settings that the task does not have.
        """
        if self.members:
            return self.members[0].task
        given = dict(self.meta["task"])
        settings = TASKS.settings(name := given.pop("name"))
        values = typed({each.name: each.type for each in settings}, given, self.where)
        usual = {each.name: each.default for each in settings if each.name != "decoding"}
        return {"name": name, **usual, **values}

    @property
    def backbone(self) -> Mapping[str, str]:
        """Name, architecture and fingerprint of the backbone that it was made on."""
        return (self.members[0] if self.members else self).meta["backbone"]  # type: ignore[no-any-return]

    def facts(self) -> dict[str, Any]:
        """Return what a person may want to know of it, as plain values."""
        if self.members:
            return self._facts_of_several()
        sizes = [a.shape[-2] for n, a in self.arrays.items() if n.startswith(("embeds", "kv."))]
        return {
            "texts": texts_in(self.meta),
            "scores": self.meta["scores"],
            "method": self.meta["method"],
            "task": self.task,
            "backbone": self.backbone,
            "virtual tokens": max(sizes, default=0),
            "parameters": sum(math.prod(array.shape) for array in self.arrays.values()),
            "data": {k: v for k, v in self.meta["data"].items() if k not in LARGE},
            "seed": self.meta["seed"],
            "versions": self.meta["versions"],
        }

    def _facts_of_several(self) -> dict[str, Any]:
        own = [member.facts() for member in self.members]
        texts = texts_in(self.meta)
        made: dict[str, Any] = {"texts": texts, "weights": self.meta["weights"]}
        for number, each in enumerate(own, 1):
            made[f"prompt {number}"] = {
                name: each[name] for name in ("method", "virtual tokens", "parameters", "scores")
            }
        return {
            **made,
            "task": self.task,
            "backbone": self.backbone,
            "parameters": sum(each["parameters"] for each in own),
            "scores": self.meta["scores"],
        }


def read_file(path: Path) -> PromptFile:
    """Read a prompt's file, or an ensemble's; raises UserError for anything else."""
    meta, arrays = read(path)
    return _of_several(str(path), meta, arrays) if "members" in meta else of_one(path, meta, arrays)


def read_prompt(path: Path) -> PromptFile:
    """Read the file of one prompt; raises UserError for anything else."""
    found = read_file(path)
    if found.members:
        raise UserError(
            f"{path}: is an ensemble of several prompts, and one is needed here; "
            "name one of those that it was made of"
        )
    return found


def of_one(where: str | Path, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> PromptFile:
    """Return what the file of one prompt holds; raises UserError where it cannot be one."""
    made = PromptFile(str(where), meta, arrays)
    check_keys(made.where, meta, arrays)
    check_values(made.where, made.injection)
    return made


def _of_several(where: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> PromptFile:
    check_fields(where, meta, {"schema", "members", "weights", "scores"})
    given, weights = meta["members"], meta["weights"]
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise UserError(f"{where}: metadata 'members' is not a list of objects")
    numbers = isinstance(weights, list) and all(type(each) in (int, float) for each in weights)
    if not numbers:
        raise UserError(f"{where}: metadata 'weights' is not a list of numbers")
    if not isinstance(meta["scores"], dict):
        raise UserError(f"{where}: metadata 'scores' is not an object")
    own: list[dict[str, Array]] = [{} for _ in given]
    for name, array in arrays.items():
        found = re.fullmatch(r"members\.(0|[1-9]\d{0,5})\.(.+)", name)
        if found is None or int(found[1]) >= len(own):
            raise UserError(f"{where}: unknown tensor '{name}'")
        own[int(found[1])][found[2]] = array
    pairs = enumerate(zip(given, own, strict=True), 1)
    members = tuple(of_one(f"{where}, member {n}", each, held) for n, (each, held) in pairs)
    return PromptFile(where, meta, arrays, members)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read metadata, and tensors as float32, refusing what safetensors would only hint at."""
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
        with safe_open(str(path), "np") as file:
            raw = (file.metadata() or {}).get(KEY)
            names = [] if raw is None else list(file.keys())  # of a whole model, nothing is read
            for name in names:
                if (kind := file.get_slice(name).get_dtype()) not in NUMBERS:
                    raise UserError(f"{path}: tensor '{name}' holds {kind}, not float32")
            tensors = {name: file.get_tensor(name) for name in names}
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
    return meta, unpack(str(path), tensors)
