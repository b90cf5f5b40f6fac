"""Prompt: the artefact. One safetensors file: tensors, and metadata that explains them."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.config import from_plain, plain
from foreword.data.read import Row
from foreword.errors import UserError, nearest
from foreword.injection import Injection
from foreword.tasks.registry import TASKS, name_of
from foreword.tasks.task import Bound, Task

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


@dataclass(frozen=True)
class Prompt:
    """A tuned injection with the task it serves, the backbone it was made on, and its history.

    ``method`` and ``data`` and ``versions`` and ``scores`` are plain JSON values, kept for
    people; running needs only the injection, the task and the backbone's fingerprint. ``on`` is
    the backbone in hand; it is not part of the file.
    """

    injection: Injection
    task: Task
    backbone: Mapping[str, str]  # name, architecture, fingerprint
    method: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    on: Backbone | None = None

    # Using -------------------------------------------------------------------------------------

    def bound(self) -> Bound:
        """Return the task on the backbone in hand."""
        if self.on is None:
            raise UserError(
                "the prompt has no backbone in hand; load it with Prompt.load(F, backbone)"
            )
        bound = self.task.bind(self.on)
        asked = self.injection.leading + bound.virtual
        held = 0 if self.injection.embeds is None else len(self.injection.embeds)
        if asked != held:
            raise UserError(
                f"the prompt holds {held} virtual tokens and its task places {asked}; "
                "its template was changed after tuning, tune it again"
            )
        return bound

    def predict(self, inputs: Sequence[str | Mapping[str, Any]]) -> list[Any]:
        """Answer texts (for a template of one field) or rows: labels, or completions."""
        bound = self.bound()
        rows = rows_of(inputs, bound)
        found = bound.predict(rows, self.injection)
        return [answer.get("label", answer.get("text")) for answer in found]

    # Saving ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all; raises UserError where that cannot be done."""
        meta = {
            "schema": SCHEMA,
            "method": dict(self.method),
            "task": {"name": name_of(self.task), **plain(self.task)},
            "backbone": dict(self.backbone),
            "leading": self.injection.leading,
            "positions": self.injection.positions,
            "data": dict(self.data),
            "seed": self.seed,
            "versions": dict(self.versions),
            "scores": dict(self.scores),
        }
        tensors = {
            name: tensor.detach().to("cpu", torch.float32).contiguous()
            for name, tensor in self.injection.tensors()
        }
        text = json.dumps(meta, ensure_ascii=False, sort_keys=True)
        return write_whole(Path(path), save(tensors, metadata={KEY: text}))

    # Loading -----------------------------------------------------------------------------------

    @staticmethod
    def load(path: str | Path, backbone: Backbone | None = None, *, force: bool = False) -> Prompt:
        """Read and check a file; with ``backbone``, check that it fits that too.

        Raises UserError for anything that is not a whole Prompt file: not safetensors, cut off,
        an oversized header, missing or unknown keys, wrong shapes, NaN or Inf; and for another
        backbone than the prompt was tuned on, unless ``force`` says to try.
        """
        path = Path(path)
        meta, tensors = _read(path)
        _check_keys(path, meta, tensors)
        injection = Injection.from_tensors(
            tensors, leading=meta["leading"], positions=meta["positions"]
        )
        _check_values(path, injection)
        task = dict(meta["task"])
        prompt = Prompt(
            injection=injection,
            task=from_plain(TASKS[task.pop("name")], task, str(path)),
            backbone=meta["backbone"],
            method=meta["method"],
            data=meta["data"],
            seed=meta["seed"],
            versions=meta["versions"],
            scores=meta["scores"],
        )
        return prompt if backbone is None else prompt.onto(backbone, force=force, where=str(path))

    def onto(self, backbone: Backbone, *, force: bool = False, where: str = "the prompt") -> Prompt:
        """Return the prompt with a backbone in hand; raises UserError where it does not fit."""
        if self.backbone["fingerprint"] != backbone.fingerprint and not force:
            raise UserError(
                f"{where}: was tuned on {self.backbone['name']} "
                f"({self.backbone['fingerprint'][:19]}), and this is {backbone.name} "
                f"({backbone.fingerprint[:19]}); load that model, or use --force to try anyway"
            )
        _check_fit(where, self.injection, backbone)
        return replace(self, on=backbone)


def rows_of(inputs: Sequence[str | Mapping[str, Any]], bound: Bound) -> list[Row]:
    """Make rows of texts, or of objects with the template's fields."""
    rows = []
    for number, given in enumerate(inputs, 1):
        if isinstance(given, str):
            fields = bound.fields
            if len(fields) != 1:
                raise UserError(
                    f"input {number} is a text, but the template has {len(fields)} fields "
                    f"({', '.join(fields)}); give rows with these fields"
                )
            given = {fields[0]: given}
        rows.append(Row(given, f"input {number}"))
    return rows


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file under another name beside it and rename: readers see all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another --out"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); nothing was changed"
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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


def _check_keys(path: Path, meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    if meta.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: has schema version {meta.get('schema')}, and this Foreword reads {SCHEMA}; "
            "use the version that wrote it"
        )
    for missing in sorted(_FIELDS - set(meta)):
        raise UserError(f"{path}: its metadata lacks '{missing}'")
    for unknown in sorted(set(meta) - _FIELDS):
        raise UserError(
            f"{path}: unknown metadata '{unknown}'; {nearest(unknown, sorted(_FIELDS))}"
        )
    _check_kinds(path, meta)
    for name in tensors:
        if name == "embeds":
            continue
        site = re.fullmatch(r"kv\.(.+)\.(keys|values)", name)
        if site is None:
            raise UserError(f"{path}: unknown tensor '{name}'")
        other = f"kv.{site[1]}.{'values' if site[2] == 'keys' else 'keys'}"
        if other not in tensors:
            raise UserError(f"{path}: tensor '{name}' stands without '{other}'")
    if not tensors:
        raise UserError(f"{path}: holds no tensor")


def _check_kinds(path: Path, meta: Mapping[str, Any]) -> None:
    for name in ("leading", "positions"):
        if not isinstance(meta[name], int) or isinstance(meta[name], bool) or meta[name] < 0:
            raise UserError(f"{path}: metadata '{name}' is {meta[name]!r}, not a count")
    for name in ("method", "task", "backbone", "data", "versions", "scores"):
        if not isinstance(meta[name], dict):
            raise UserError(f"{path}: metadata '{name}' is not an object")
    for name in ("name", "architecture", "fingerprint"):
        if not isinstance(meta["backbone"].get(name), str):
            raise UserError(f"{path}: metadata 'backbone' lacks '{name}'")
    kind = meta["task"].get("name")
    if not isinstance(kind, str) or kind not in TASKS:
        raise UserError(f"{path}: unknown task '{kind}'; {nearest(str(kind), TASKS)}")


def _check_values(path: Path, injection: Injection) -> None:
    for name, tensor in injection.tensors():
        if tensor.dtype != torch.float32:
            raise UserError(f"{path}: tensor '{name}' holds {tensor.dtype}, not float32")
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: tensor '{name}' holds NaN or Inf; the prompt is unusable")
        rank = 2 if name == "embeds" else 3
        if tensor.dim() != rank:
            raise UserError(
                f"{path}: tensor '{name}' has shape {tuple(tensor.shape)}, not {rank} dimensions"
            )
    for site, kv in injection.kv.items():
        if kv.keys.shape[:2] != kv.values.shape[:2]:
            raise UserError(
                f"{path}: keys and values of '{site}' have shapes {tuple(kv.keys.shape)} and "
                f"{tuple(kv.values.shape)}; heads and lengths must agree"
            )
    if injection.leading > (0 if injection.embeds is None else len(injection.embeds)):
        raise UserError(f"{path}: more leading virtual tokens than there are embeddings")


def _check_fit(where: str, injection: Injection, backbone: Backbone) -> None:
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
