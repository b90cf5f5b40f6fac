"""The commands that write prompts for other programs, and read theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Force, Json, Loaded, on_backbone
from foreword.cli.flags import NO_FLAGS, Flag, Flags, parameters
from foreword.config.settings import Setting
from foreword.config.values import from_plain
from foreword.errors import UserError, nearest
from foreword.export.registry import EXPORTS
from foreword.report import console


def _flags() -> dict[str, Flag]:
    """Return the settings of all formats as flags, by name."""
    found: dict[str, dict[str, Setting]] = {}
    for name in EXPORTS:
        for each in EXPORTS.settings(name):
            found.setdefault(each.name, {})[f"format {name}"] = each
    return {name: Flag(name, owners) for name, owners in found.items()}


FormatFlags = parameters("FormatFlags", _flags().values())
NO_FORMAT_FLAGS = FormatFlags()


def export(
    prompt: Path,
    out: Path,
    /,
    *,
    to: Annotated[str, Parameter(help=f"the format: {', '.join(EXPORTS)}")] = "peft",
    settings: Annotated[FormatFlags, Parameter(name="*")] = NO_FORMAT_FLAGS,  # type: ignore[valid-type]
    model: Annotated[
        str | None, Parameter(help="load this model and compare the prompt's layers with its")
    ] = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a prompt as another program reads it."""
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    target = _format(to, {name: value for name, value in given.items() if value is not None})
    from foreword.prompt.prompt import Prompt

    loaded = Prompt.load(prompt)
    if model is not None:
        loaded = on_backbone(loaded, prompt, model, loading, force=force)
    written = target.write(loaded, out)
    if as_json:
        console.emit({"out": str(written), "format": to})
    else:
        console.line(f"{written}: written for {to}")


def import_(
    path: Path,
    /,
    *,
    kind: Annotated[str, Parameter(name="--format", help=", ".join(EXPORTS))] = "peft",
    flags: Annotated[Flags, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    as_json: Json = False,
) -> None:
    """Read a prompt that another program wrote, and save it as a prompt file for a task."""
    source = _format(kind, {}, "--format")
    from foreword.backbone.backbone import Backbone
    from foreword.cli.settings import task_alone
    from foreword.export.base import ImportFormat

    if not isinstance(source, ImportFormat):
        raise UserError(f"--format {kind}: Foreword writes this format and does not read it")
    wanted, task = task_alone(flags)
    if wanted["out"] is None:
        raise UserError("--out is missing")
    backbone = Backbone.load(wanted["model"], dtype=wanted["dtype"], device=wanted["device"])
    saved = source.read(path, backbone, task).save(wanted["out"])
    if as_json:
        console.emit({"out": str(saved)})
    else:
        console.line(f"{saved}: {saved.stat().st_size / 1024:.0f} KiB")


def _format(name: str, settings: Mapping[str, Any], flag: str = "--to") -> Any:
    """Return a format with its settings; raises UserError for an unknown one, or a setting."""
    if name not in EXPORTS:
        raise UserError(f"{flag} {name}: unknown; {nearest(name, EXPORTS)}")
    return from_plain(EXPORTS[name], settings, f"{flag} {name}")
