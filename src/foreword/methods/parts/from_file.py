"""Training continued from a prompt file: its tensors are the parameters, whatever its method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from foreword.config.values import plain
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Trainable, as_float32
from foreword.methods.parts.start_from_prompt import read_on_backbone
from foreword.prompt.tensors import opened
from foreword.tasks.base import Bound
from foreword.tasks.score import spell


@dataclass(frozen=True)
class FromFile:
    """Continued training of a prompt's tensors.

    ``method`` names the method that they were first trained by. A network that they were trained
    through (an LSTM, an MLP, gates) is not in the file, so the tensors themselves are trained.
    ``sha256`` is the file's hash, by which an interrupted run sees whether the file has changed.
    """

    source: str
    method: str
    sha256: str
    rate: float
    shots: int | None = None

    @property
    def registered_name(self) -> str:
        """The method's name, under which what is made of it is kept."""
        return self.method

    @staticmethod
    def read(path: str | Path, rate: float | None = None) -> tuple[FromFile, dict[str, Any]]:
        """Read a prompt file: the method that continues it, and its task's settings.

        Without ``rate`` the learning rate is that of the file's method (the lowest of several).
        Raises UserError where it names none, and for a file that is no prompt.
        """
        meta, _ = opened(Path(path))
        made = meta["method"]
        parts = [made, *made.get("methods", ())]
        rates = [each["rate"] for each in parts if isinstance(each.get("rate"), float)]
        if rate is None and not rates:
            raise UserError(f"{path}: names no learning rate to go on with; give `rate`")
        found = FromFile(
            str(path),
            str(made.get("name")),
            hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            min(rates) if rate is None else rate,
            max(each.get("shots") or 0 for each in parts) or None,
        )
        return found, dict(meta["task"])

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> PromptTensors:
        """Make the file's tensors parameters.

        Raises UserError for a prompt of another backbone, of other virtual tokens than the
        task's template places, or with a head for other labels.
        """
        injection = read_on_backbone(Path(self.source), task.backbone)
        held = 0 if injection.embeds is None else len(injection.embeds)
        if injection.leading + task.virtual != held:
            raise UserError(
                f"{self.source}: has {held - injection.leading} virtual tokens in its template, "
                f"and the template given has {task.virtual}; give as many"
            )
        if injection.head is not None:
            self._check_classes(task)
        return PromptTensors(injection)

    def _check_classes(self, task: Bound) -> None:
        """Raise UserError where a head would score other classes than those it was trained on."""
        meta, _ = opened(Path(self.source))
        own, asked = _scored(meta["task"]), _scored(plain(task.task))
        if own != asked:
            raise UserError(
                f"{self.source}: its head scores {' '.join(own)}, and the task has "
                f"{asked[1] if own[0] == asked[0] else ' '.join(asked)}; give the same, or start "
                "another head with `method`"
            )


def _scored(task: Mapping[str, Any]) -> tuple[str, str]:
    """Say what a head scores by a task's settings: of what kind it is, and its names."""
    numbers = [spell(number) for number in sorted((task.get("anchors") or {}).values())]
    if task.get("regression"):
        return "one number", f"from {numbers[0]} to {numbers[-1]}"
    if numbers:
        return "the anchors", ", ".join(numbers)
    return "the labels", ", ".join(sorted(task.get("labels") or ())) or "none"


class PromptTensors(Trainable):
    """The tensors of an injection, each a parameter."""

    def __init__(self, injection: Injection) -> None:
        super().__init__()
        found = dict(injection.tensors())
        self.names = list(found)
        self.settings: Mapping[str, Any] = injection.settings()
        self.tensors = nn.ParameterList([as_float32(tensor) for tensor in found.values()])

    def forward(self) -> Injection:
        """Return the injection that the file held, of the parameters as they are now."""
        return Injection.from_tensors(
            dict(zip(self.names, self.tensors, strict=True)), self.settings
        )
