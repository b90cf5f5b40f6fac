"""The command that shows what a prompt file holds."""

from __future__ import annotations

from pathlib import Path

from foreword.cli.common import Json
from foreword.compose.ensemble import load
from foreword.report import tables


def info(prompt: Path, *, as_json: Json = False) -> None:
    """Show what a prompt file holds; no model is loaded."""
    loaded = load(prompt)
    facts = {"file": str(prompt), "bytes": prompt.stat().st_size, **loaded.facts()}
    if as_json:
        shapes = {name: list(tensor.shape) for name, tensor in loaded.tensors().items()}
        tables.emit({**facts, "tensors": shapes})
        return
    tables.out().print(tables.facts(facts))
