"""What all cases of a run have in common, and how it is told to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from train_models import open_model

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.sources import Source
from foreword.errors import UserError
from foreword.training.settings import Switch

BATCHES = 5
"""The most batches that are compared; with more pairs than that they come round again."""


@dataclass(frozen=True)
class Setting:
    """The model, where and in what numbers it runs, the rows' files, and the seed.

    ``compiled`` is Foreword's setting ``compile``. ``pairs`` is how many steps of each side are
    timed.
    """

    model: str
    device: str
    dtype: str
    files: Mapping[str, str | Path]
    seed: int
    threads: int
    pairs: int
    compiled: Switch

    def check(self) -> None:
        """Raise UserError for values out of range, and a device that is not there."""
        for name in ("threads", "pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU here; give cpu")

    @property
    def batches(self) -> int:
        """How many different batches the steps go through in turn."""
        return min(BATCHES, max(2, self.pairs))

    def open(self, dtype: str | None = None) -> Source:
        """Open the model, in other numbers where they are given."""
        return open_model(self.model, dtype or self.dtype, self.device, self.files, self.seed)

    def backbone(self, dtype: str | None = None) -> Backbone:
        """Open the model as Foreword runs it."""
        source = self.open(dtype)
        return Backbone(source.model, source.tokenizer, architecture="causal", name=source.name)

    def arguments(self) -> list[str]:
        """Return the command line that makes another process have the same setting."""
        made = ["--model", self.model, "--device", self.device, "--dtype", self.dtype]
        made += ["--seed", str(self.seed), "--threads", str(self.threads)]
        made += ["--pairs", str(self.pairs), "--compile", self.compiled]
        for name, file in self.files.items():
            made += [f"--{name}", str(file)]
        return made


def wait(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
