"""FromFile tuning: the tensors of a prompt file as parameters, whatever method made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foreword.config.values import plain
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Trainable
from foreword.methods.parts.start_from_prompt import read_own
from foreword.prompt.tensors import opened
from foreword.tasks.base import Bound


@dataclass(frozen=True)
class FromFile:
    """Training that goes on from a prompt with that prompt's own tensors.

    ``method`` names the one that made them. What that trained them through (an LSTM, an MLP,
    gates) is not in the file: here the tensors themselves are trained. ``sha256`` is that of the
    file, so that an interrupted run knows whether it is still the same.
    """

    source: str
    method: str
    sha256: str
    rate: float
    shots: int = 4

    @property
    def registered_name(self) -> str:
        """The method's name, under which what is made of it is kept."""
        return self.method

    @staticmethod
    def of(path: str | Path, rate: float | None = None) -> tuple[FromFile, dict[str, Any]]:
        """Read a prompt file: what goes on from it, and its task's settings as plain values.

        Without ``rate`` the learning rate is that of the file's method (the lowest of several).
        Raises UserError where it names none, and for a file that is no prompt.
        """
        meta, _ = opened(Path(path))
        made = meta["method"]
        parts = [made, *made.get("methods", ())]
        rates = [each["rate"] for each in parts if isinstance(each.get("rate"), float)]
        if rate is None and not rates:
            raise UserError(f"{path}: names no learning rate to go on with; give --lr")
        found = FromFile(
            str(path),
            str(made.get("name")),
            hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            min(rates) if rate is None else rate,
            max(each.get("shots") or 0 for each in parts) or FromFile.shots,
        )
        return found, dict(meta["task"])

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Going:
        """Make the file's tensors parameters.

        Raises UserError for a prompt of another backbone, of other virtual tokens than the
        task's template places, or with a head for other labels.
        """
        injection = read_own(Path(self.source), task.backbone)
        held = 0 if injection.embeds is None else len(injection.embeds)
        if injection.leading + task.virtual != held:
            raise UserError(
                f"{self.source}: has {held - injection.leading} virtual tokens in its template, "
                f"and the template given has {task.virtual}; give as many"
            )
        if injection.head is not None:
            self._check_labels(task)
        return Going(injection)

    def _check_labels(self, task: Bound) -> None:
        """Raise UserError where a head would score other labels than those it was trained on."""
        meta, _ = opened(Path(self.source))
        own = sorted(meta["task"].get("labels") or ())
        asked = sorted(plain(task.task).get("labels") or ())
        if own != asked:
            raise UserError(
                f"{self.source}: its head scores the labels {', '.join(own)}, and the task has "
                f"{', '.join(asked) or 'none'}; give the same, or start another head with --method"
            )


class Going(Trainable):
    """The tensors of an injection, each a parameter."""

    def __init__(self, injection: Injection) -> None:
        super().__init__()
        found = dict(injection.tensors())
        self.names = list(found)
        self.settings: Mapping[str, Any] = injection.settings()
        self.tensors = nn.ParameterList([_own(tensor) for tensor in found.values()])

    def forward(self) -> Injection:
        """Return the injection that the file held, of the parameters as they are now."""
        return Injection.from_tensors(
            dict(zip(self.names, self.tensors, strict=True)), self.settings
        )


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().float().clone()
