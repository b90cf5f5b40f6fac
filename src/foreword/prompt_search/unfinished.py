"""Runs of trials that are not finished, kept beside the prompt, so that a stopped trial goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foreword.config.values import hash_of
from foreword.data.row import Row
from foreword.data.sample import digest


class Unfinished:
    """The hidden folder of a search's running trial: a checkpoint, and the folds that are done.

    It is ``about`` a study, and what another one left there is not taken up. Without a ``folder``
    nothing is kept.
    """

    def __init__(self, folder: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = folder, hash_of(about)

    @staticmethod
    def beside(out: Path, about: Mapping[str, Any]) -> Unfinished:
        """Return the folder of the search that writes ``out``."""
        return Unfinished(out.with_name(f".{out.name}.trials"), about)

    def place(self, settings: Mapping[str, Any], rows: Sequence[Row]) -> Path | None:
        """Return where a run with these settings on these rows is kept."""
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        named = hash_of([self.about, {n: str(v) for n, v in settings.items()}, digest(rows)])
        return self.folder / f"{named[:24]}.safetensors"

    def forget(self) -> None:
        """Remove what is kept: the trial has ended."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
