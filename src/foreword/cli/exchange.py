"""The commands that write prompts as another library lays them out, and read them back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.backbone.backbone import Backbone
from foreword.cli.common import USUALLY, Force, Json, Loaded, on_backbone
from foreword.cli.flags import NO_FLAGS, Flags
from foreword.cli.settings import task_alone
from foreword.errors import UserError
from foreword.export.peft import from_peft, to_peft
from foreword.prompt.prompt import Prompt
from foreword.report import tables


def export(
    prompt: Path,
    folder: Path,
    /,
    *,
    to: Annotated[str, Parameter(help="peft")] = "peft",
    kind: Annotated[
        str | None, Parameter(help="of keys and values: PREFIX_TUNING, the default, or CARTRIDGE")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="load this model and compare the prompt's layers with its")
    ] = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a prompt as another library lays it out."""
    if to != "peft":
        raise UserError(f"--to {to}: unknown; known: peft")
    loaded = Prompt.load(prompt)
    if model is not None:
        loaded = on_backbone(loaded, prompt, model, loading, force=force)
    to_peft(loaded, folder, kind=kind)
    if as_json:
        tables.emit({"out": str(folder), "format": to})
    else:
        tables.line(f"{folder}: written for peft")


def import_(
    folder: Path,
    /,
    *,
    flags: Annotated[Flags, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    as_json: Json = False,
) -> None:
    """Read a PEFT adapter folder and write it as a prompt file for a task."""
    wanted, task = task_alone(flags)
    if wanted["out"] is None:
        raise UserError("--out is missing")
    backbone = Backbone.load(wanted["model"], dtype=wanted["dtype"], device=wanted["device"])
    path = from_peft(folder, backbone, task).save(wanted["out"])
    if as_json:
        tables.emit({"out": str(path)})
    else:
        tables.line(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
