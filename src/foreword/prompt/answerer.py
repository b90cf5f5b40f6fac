"""Answerer: what answers rows, a prompt or several that answer as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.tasks.base import Bound, Task


class Answerer(Protocol):
    """What answers rows: a prompt, or several that answer as one (compose/ensemble.py)."""

    @property
    def task(self) -> Task:
        """The task that it serves."""

    @property
    def backbone(self) -> Mapping[str, str]:
        """Name, architecture and fingerprint of the backbone that it was made on."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What it was made of, and demonstrations for a baseline."""

    @property
    def bound(self) -> Bound:
        """Return the task on the backbone."""

    def answers(
        self, rows: Sequence[Row], *, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Answer rows, one object each; ``progress`` is told how many more are done."""

    def predict(self, inputs: Any, **settings: Any) -> Any:
        """Answer one text or row, or a list of answers for many."""

    def decoding(self, **settings: Any) -> Self:
        """Return it with other settings by which texts are decoded."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of its file by their names there."""

    def on_backbone(self, backbone: Backbone, *, force: bool = False, where: str = "...") -> Self:
        """Return it with a backbone in hand; raises UserError where it does not fit."""

    def save(self, path: str | Path) -> Path:
        """Write its file, whole or not at all."""
