"""Answers that are kept: nothing is asked for twice, in one report or in the next."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.config.values import plain
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.files import file_to_write
from foreword.injection import Injection
from foreword.tasks.base import Bound
from foreword.tasks.registry import name_of

Answer = dict[str, Any]
BEGINS = re.compile(rb'\[("[0-9a-f]{0,32})?')
"""How a file of answers begins: with a key, which may be cut off."""

Ask = Callable[[Sequence[Row]], list[Answer]]


class KeptAnswers:
    """Answers by who gave them and by row, in memory and, with ``path``, in a file.

    The file holds one JSON line an answer. A line that was cut off is left out. ``seconds`` is the
    time that answers took. Raises UserError for a file that holds anything else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.seconds = 0.0
        self.held: dict[str, Answer] = {}
        if path is not None and (target := file_to_write(path)).exists():
            self.held = _read(path, target.read_bytes())

    def ask(self, system: str, rows: Sequence[Row], answer: Ask) -> list[Answer]:
        """Return the answers to rows; ``answer`` is called for those that are not kept.

        ``system`` is a hash of all that the answers depend on, besides the row.
        """
        keys = [_key(system, row) for row in rows]
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in self.held}
        if missing:
            began = time.monotonic()
            answered = answer(list(missing.values()))
            self.seconds += time.monotonic() - began
            # what a file holds and what was just answered must not differ
            found = [json.loads(json.dumps(each)) for each in answered]
            added = dict(zip(missing, found, strict=True))
            self.held |= added
            self._write(added)
        return [self.held[key] for key in keys]

    def _write(self, added: Mapping[str, Answer]) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps([key, each])}\n" for key, each in added.items())
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); name another file"
            ) from None


def _read(path: Path, content: bytes) -> dict[str, Answer]:
    if content and not BEGINS.fullmatch(content[:34]):
        raise UserError(f"{path}: is there already and holds no kept answers; name another file")
    held = {}
    for line in content.decode("utf-8", "replace").splitlines():
        try:
            key, answer = json.loads(line)
        except (ValueError, TypeError):
            continue
        held[str(key)] = answer
    return held


def _key(system: str, row: Row) -> str:
    said = json.dumps(dict(row.fields), sort_keys=True, default=str)
    return hashlib.sha256(f"{system}\n{said}".encode()).hexdigest()[:32]


def system_of(bound: Bound, injection: Injection, *more: object) -> str:
    """Return a hash of what answers: task, template, model, injection and whatever more counts."""
    made = hashlib.sha256()
    backbone = bound.backbone
    about = {
        "task": {"name": name_of(bound.task), **plain(bound.task)},
        "template": str(bound.template.parts),
        "headed": bound.headed,
        "model": [backbone.fingerprint, backbone.architecture, str(backbone.dtype)],
        "quantized": backbone.quantized,
        "injection": injection.settings(),
        "more": [str(each) for each in more],
    }
    made.update(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in injection.tensors():
        made.update(name.encode())
        made.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return made.hexdigest()
