"""The commands that write prompts for other programs, and read theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Force, Json, Loaded, PromptFile, on_backbone
from foreword.cli.completion import File, completed
from foreword.cli.flags import flags_of, owned, parameters
from foreword.cli.panels import MODEL
from foreword.config.values import from_plain
from foreword.display import console
from foreword.display.facts import in_words
from foreword.errors import UserError, nearest
from foreword.export.registry import EXPORTS

if TYPE_CHECKING:
    Format = str
else:
    Format = completed(tuple(EXPORTS))

OF_MODEL = ("dtype", "device", "architecture", "pooling")
TASK_ALONE = ("task", "model", "threads", *OF_MODEL)
"""Settings of a run that an import has, beside those of its task."""

TaskFlags = parameters(
    "TaskFlags",
    flags_of((o, s) for o, s in owned() if o[0] == "task" or s.name in TASK_ALONE).values(),
)
NO_TASK_FLAGS = TaskFlags()

FORMATS = flags_of((("format", name), each) for name in EXPORTS for each in EXPORTS.settings(name))
FormatFlags = parameters("FormatFlags", FORMATS.values())
NO_FORMAT_FLAGS = FormatFlags()


def export(
    prompt: PromptFile,
    out: Annotated[Path, Parameter(help="the folder or file to write")],
    *,
    to: Annotated[Format, Parameter(help=f"the format: {', '.join(EXPORTS)}")] = "peft",
    settings: Annotated[FormatFlags, Parameter(name="*")] = NO_FORMAT_FLAGS,  # type: ignore[valid-type]
    model: Annotated[
        File | None,
        Parameter(help="load this model and compare the prompt's layers with its", group=MODEL),
    ] = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a prompt as another program reads it."""
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    target = _format(to, {name: value for name, value in given.items() if value is not None})
    from foreword.export.base import OpenedFormat
    from foreword.prompt.prompt import Prompt

    loaded = Prompt.load(prompt)
    if model is not None:
        loaded = on_backbone(loaded, prompt, model, loading, force=force)
    written = target.write(loaded, out)
    opened = target.opened(loaded, written) if isinstance(target, OpenedFormat) else None
    template, bos = loaded.task.template, loaded.injection.bos
    if as_json:
        about = {"out": str(written), "format": to, "opened": opened, "template": template}
        console.emit({**about, "add_special_tokens": not bos})
        return
    console.line(f"{written}: written for {to}")
    if opened is not None:
        console.line(f"next, in Python: {opened}")
    if template is not None:
        console.line(f"its input is laid out as {in_words(template)}")
    if bos:
        console.line(
            "its input has no token that begins a text, which the prompt has (BOS): tokenize it "
            "with add_special_tokens=False"
        )


def import_(
    path: Annotated[Path, Parameter(help="what the other program wrote")],
    out: Annotated[Path, Parameter(help="the prompt file to write")],
    *,
    kind: Annotated[Format, Parameter(name="--format", help=", ".join(EXPORTS))] = "peft",
    flags: Annotated[TaskFlags, Parameter(name="*")] = NO_TASK_FLAGS,  # type: ignore[valid-type]
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
    backbone = Backbone.load(wanted["model"], **{name: wanted[name] for name in OF_MODEL})
    saved = source.read(path, backbone, task).save(out)
    if as_json:
        console.emit({"out": str(saved)})
    else:
        console.line(f"{saved}: {saved.stat().st_size / 1024:.0f} KiB")


def _format(name: str, settings: Mapping[str, Any], flag: str = "--to") -> Any:
    """Return a format with its settings; raises UserError for an unknown one, or a setting."""
    if name not in EXPORTS:
        raise UserError(f"{flag} {name}: unknown; {nearest(name, EXPORTS)}")
    return from_plain(EXPORTS[name], settings, f"{flag} {name}")
