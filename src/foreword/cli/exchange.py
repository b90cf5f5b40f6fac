"""The commands that write prompts for other programs, and read theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Force, Json, Loaded, names_of, on_backbone
from foreword.cli.completion import File, completed
from foreword.cli.flags import flags_of, owned, parameters
from foreword.cli.panels import DATA, MODEL
from foreword.cli.reading import USUAL
from foreword.cli.whole import Whole
from foreword.config.values import from_plain
from foreword.data.folder import DEV, TEST
from foreword.data.sample import first
from foreword.display import console
from foreword.display.facts import in_words
from foreword.errors import UserError, nearest
from foreword.export.registry import EXPORTS
from foreword.files import check_place_of_tensors

if TYPE_CHECKING:
    from foreword.data.row import Row
    from foreword.prompt.prompt import Prompt

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
    *paths: Annotated[Path, Parameter(help="prompt files, then the folder or file to write")],
    out: Annotated[Path | None, Parameter(help="the folder or file to write")] = None,
    to: Annotated[Format, Parameter(help=f"the format: {', '.join(EXPORTS)}")] = "peft",
    settings: Annotated[FormatFlags, Parameter(name="*")] = NO_FORMAT_FLAGS,  # type: ignore[valid-type]
    data: Annotated[
        File | None,
        Parameter(help="rows on which what is written is tried; else some short texts", group=DATA),
    ] = None,
    rows: Annotated[Whole, Parameter(help="the most rows that are tried", group=DATA)] = 8,
    model: Annotated[
        File | None,
        Parameter(help="load this model and compare the prompt's layers with its", group=MODEL),
    ] = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write prompts as another program reads them.

    Several prompts are written to one folder, each under the name of its file. Where that program
    can be run here, it answers a few rows with each, beside Foreword.
    """
    if len(paths) < 1 + (out is None):
        raise UserError("name the prompt, and then the folder or file to write")
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    target = _format(to, {name: value for name, value in given.items() if value is not None})
    from foreword.export.base import NotedFormat, VerifiedFormat
    from foreword.prompt.prompt import Prompt

    *prompts, out = paths if out is None else (*paths, out)
    tried = None
    if data is not None:
        if not isinstance(target, VerifiedFormat | NotedFormat):
            raise UserError(f"--data: what is written for {to} is not tried here")
        tried = USUAL.rows(data, (*DEV, *TEST))
        tried = first(tried, min(rows, len(tried)), 0)
    places = (
        [out] if len(prompts) == 1 else [out / f"{n}{target.suffix}" for n in names_of(prompts)]
    )
    found = []
    for path, place in zip(prompts, places, strict=True):
        loaded = Prompt.load(path)
        if model is not None or force or loading != USUALLY:
            loaded = on_backbone(loaded, path, model, loading, force=force)
        if tried is not None:
            loaded.bound.check(tried, answers=False)
        about = {**_export(loaded, target, place, tried), "format": to}
        found.append(about)
        if not as_json:
            _show(about, to)
    if as_json:
        console.emit(found[0] if len(found) == 1 else {"format": to, "prompts": found})


def _export(prompt: Prompt, target: Any, place: Path, rows: list[Row] | None) -> dict[str, Any]:
    """Write a prompt and try it in the other program; return what there is to say of it."""
    from foreword.export.base import NotedFormat, OpenedFormat, VerifiedFormat
    from foreword.export.verify import verify

    written = target.write(prompt, place)
    about: dict[str, Any] = {
        "out": str(written),
        "opened": target.opened(prompt, written) if isinstance(target, OpenedFormat) else None,
        "template": prompt.task.template,
        "add_special_tokens": not prompt.injection.bos,
    }
    if isinstance(target, VerifiedFormat):
        about["verified"] = dataclasses.asdict(verify(target, prompt, written, rows))
    if isinstance(target, NotedFormat):
        about["notes"] = list(target.notes(prompt, rows or ()))
    return about


def _show(about: Mapping[str, Any], to: str) -> None:
    console.line(f"{about['out']}: written for {to}")
    if (found := about.get("verified")) is not None:
        if "reason" in found:
            console.line(f"not tried: {found['reason']}")
        else:
            apart = found["difference"]
            same = (
                f"{found['runtime']}: {found['equal']:.0%} of {found['rows']} answers are the same"
            )
            console.line(same + ("" if apart is None else f", largest difference {apart:.1e}"))
    if about["opened"] is not None:
        console.line(f"next: {about['opened']}")
    for note in about.get("notes", ()):
        console.line(note)
    if about["template"] is not None:
        console.line(f"its input is laid out as {in_words(about['template'])}")
    if not about["add_special_tokens"]:
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
    from foreword.tasks.labels.labelling import LabelTask

    if not isinstance(source, ImportFormat):
        raise UserError(f"--format {kind}: Foreword writes this format and does not read it")
    wanted, task = task_alone(flags)
    for name in ("template", "labels"):
        if getattr(task, name, "") is None:
            raise UserError(f"--{name} is missing: {path} does not say it; give that of the task")
    if check_place_of_tensors(out, path).parent == path.resolve() and out.exists():
        raise UserError(f"{out}: is part of what is read, which stays; name another file")
    if isinstance(task, LabelTask):
        task = task.with_words()
    backbone = Backbone.load(wanted["model"], **{name: wanted[name] for name in OF_MODEL})
    made = source.read(path, backbone, task)
    saved = made.save(out)
    _say_base(path, made)
    if as_json:
        console.emit({"out": str(saved)})
    else:
        console.line(f"{saved}: {saved.stat().st_size / 1024:.0f} KiB")


def _say_base(path: Path, prompt: Prompt) -> None:
    """Say where what was read names another model than the one that it is read for."""
    from foreword.backbone.load.sources import name_in_transformers

    named, own = prompt.method.get("base_model"), prompt.backbone["name"]
    if named and Path(named).name != Path(name_in_transformers(own)).name:
        console.say(
            f"{path} is of the model {named}, and was read for {own}: if that has other weights, "
            "give the right one with --model"
        )


def _format(name: str, settings: Mapping[str, Any], flag: str = "--to") -> Any:
    """Return a format with its settings; raises UserError for an unknown one, or a setting."""
    if name not in EXPORTS:
        raise UserError(f"{flag} {name}: unknown; {nearest(name, EXPORTS)}")
    return from_plain(EXPORTS[name], settings, f"{flag} {name}")
