"""The command that checks files of rows, for a task and a model where they are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from foreword.cli.advice import with_flags
from foreword.cli.common import Json
from foreword.cli.completion import File
from foreword.cli.data import Fields, check_fields
from foreword.cli.flags import flags_of, given, owned, parameters
from foreword.cli.label_words import file_of_labels, read_label_words
from foreword.cli.reading import USUAL_TABLE, ReadTable
from foreword.cli.terminal import CommandTerminal
from foreword.cli.words import ESCAPED, flag, parse_labels, unescaped
from foreword.data.bad_rows import BadRows, convert
from foreword.data.check import NO_FIELD
from foreword.data.check import check as find
from foreword.data.lookalikes import ending
from foreword.data.problems import WHY, Checked, with_refusals
from foreword.data.row import Row
from foreword.data.shapes import canonical
from foreword.display import console
from foreword.errors import UserError
from foreword.grammar import counted

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone

SHOWN = 3
"""Places of a problem that are named."""

OF_MODEL = ("model", "architecture", "pooling")
"""Settings of the model that rows are laid out for."""

ALONE = (*OF_MODEL, "label_field", "max_length")
"""Settings that rows can be checked by where no task is named."""

CheckFlags = parameters(
    "CheckFlags",
    flags_of(
        (o, s) for o, s in owned() if o[0] == "task" or s.name in ("task", *OF_MODEL)
    ).values(),
)
NO_FLAGS = CheckFlags()
Part = Annotated[File | None, Parameter(help="rows of that split")]


def check(
    files: Annotated[
        list[File] | None, Parameter(help="files of rows; the first is trained on")
    ] = None,
    /,
    *,
    train: Part = None,
    dev: Part = None,
    test: Part = None,
    reading: ReadTable = USUAL_TABLE,
    fields: Fields = None,
    flags: Annotated[CheckFlags, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    as_json: Json = False,
) -> None:
    """Say what files of rows hold and what is wrong with them; exit with 2 where that is an error.

    Files given as --train, --dev and --test, or in this order, are compared with one another. With
    --task, and what train takes for it, rows are checked for it; with --model too, by all that a
    training would refuse, and by the model's tokens.
    """
    named = {n: f for n, f in (("train", train), ("dev", dev), ("test", test)) if f is not None}
    for file in files or ():
        if file in named:
            raise UserError(f"{file}: is given twice; name each file once")
        named[file] = file
    if not named:
        raise UserError("give files of rows to check, or --train F --dev F --test F")
    settings = given(flags)
    for name in OF_MODEL[1:]:
        if name in settings and "model" not in settings:
            raise UserError(f"{flag(name)} says how a model is opened; give --model too")
    bad = {name: BadRows() for name in named}
    read = {name: reading.read(file, on_bad=bad[name]) for name, file in named.items()}
    for name, rows in read.items():
        bad[name].check(rows)
    check_fields(next(iter(read.values())), fields)
    unread = {name: each.places for name, each in bad.items()}
    with CommandTerminal().bar("checking", sum(map(len, read.values()))) as move:
        about: dict[str, Any] = {"unread": unread, "progress": move}
        if not settings.keys() - set(ALONE):
            found = _plainly(read, settings, fields, about)
        elif "model" not in settings:
            found = _by_rules(read, settings, **about)
        else:
            found = _by_training(read, settings, about)
    if reading.delimiter is None:
        found = found.noting(
            "other delimiter", {n: ending(Path(f), reading.encoding) for n, f in named.items()}
        )
    if as_json:
        console.emit(_plain(found))
    else:
        _print(found)
    errors = [problem for problem in found.problems if problem.level == "error"]
    if errors:
        first = errors[0]
        more = f"{counted(len(errors), 'kind')} of error in all; mend the rows"
        if first.kind == "refused":
            raise UserError(f"{first.places[0]}; {more}")
        raise UserError(
            f"{first.places[0]}: {first.kind}; {more}, or see what foreword data clean F --out G "
            "--dry-run would do"
        )


def _plainly(
    read: Mapping[str, list[Row]],
    settings: Mapping[str, Any],
    fields: Sequence[str] | None,
    about: Mapping[str, Any],
) -> Checked:
    """Check rows of which no task is known."""
    lengths = None
    if "model" in settings:
        from foreword.training.check import in_tokens

        backbone = _outline(settings)
        lengths = in_tokens(backbone, settings.get("max_length", 512))
    label = settings.get("label_field", "label")
    return find(read, fields=fields, label_field=label, lengths=lengths, **about)


def _by_rules(
    read: Mapping[str, list[Row]],
    settings: Mapping[str, Any],
    *,
    unread: Mapping[str, Sequence[str]],
    progress: Callable[[int], None],
) -> Checked:
    """Check rows for a task of which the model is not known, by its settings alone."""
    from foreword.tasks.rules import rules_of

    own = {n: unescaped(v) if n in ESCAPED else v for n, v in settings.items() if n != "task"}
    if isinstance(own.get("labels"), list):
        file = file_of_labels(own["labels"])
        own["labels"] = parse_labels(own["labels"]) if file is None else read_label_words(file)
    rules = rules_of(settings.get("task", "classify"), own)
    errors: dict[str, BadRows] = {name: BadRows() for name in read}
    rows = {name: canonical(each, on_bad=errors[name])[1] for name, each in read.items()}
    rules = rules.knowing(next(iter(rows.values())))  # the labels of what is trained on
    for name, each in rows.items():
        rows[name] = list(convert(each, rules.checked, errors[name]))
        progress(len(read[name]))
    first = next(iter(rows.values())) or next(iter(read.values()))
    found = find(
        {name: each or read[name] for name, each in rows.items()},
        fields=[name for name in rules.inputs if name in first[0].fields] or None,
        label_field=(rules.answer if rules.classes else None) or NO_FIELD,
        classes=rules.one_label and rules.classes,
        unread=unread,
    )
    refused = {name: [str(error) for error in each.errors] for name, each in errors.items()}
    return with_refusals(found, refused, {})


def _by_training(
    read: Mapping[str, list[Row]], settings: Mapping[str, Any], about: Mapping[str, Any]
) -> Checked:
    """Check rows for a task on a model, by what the training itself would refuse."""
    from foreword.cli.settings import task_alone
    from foreword.training.check import check_for

    plain, task = task_alone(CheckFlags(**settings))
    return check_for(task, _outline(plain), read, **about)


def _outline(settings: Mapping[str, Any]) -> Backbone:
    """Open the model that is named, without its weights."""
    from foreword.backbone.backbone import Backbone

    usual = {"architecture": "auto", "pooling": "auto"}
    how = {name: settings.get(name, each) for name, each in usual.items()}
    return Backbone.outline(settings["model"], **how)


def _plain(found: Checked) -> dict[str, Any]:
    problems = [
        {
            "kind": each.kind,
            "level": each.level,
            "why": WHY[each.kind][1],
            "split": each.split,
            "count": len(each.places),
            "places": list(each.places[:SHOWN]),
        }
        for each in found.problems
    ]
    counts = {
        f"{level}s": sum(each.level == level for each in found.problems)
        for level in ("error", "warning")
    }
    return {"splits": dict(found.splits), "problems": problems, **counts}


def _print(found: Checked) -> None:
    screen = console.out()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    units = {about["length"]["unit"] for about in found.splits.values()}
    for name in ("rows", "labels", "median", "95%", "longest"):
        table.add_column(name, justify="right")
    for name, about in found.splits.items():
        sizes = [str(about["length"][key]) for key in ("median", "95%", "longest")]
        table.add_row(name, str(about["rows"]), str(len(about.get("labels", {})) or ""), *sizes)
    screen.print(table)
    first = next(iter(found.splits.values()))
    console.line(
        f"lengths in {', '.join(units)}; shape {first['shape']}; {', '.join(first['fields'])}"
    )
    console.line(f"rows are compared by {', '.join(first['compared'])}")
    if "labels" in first:
        few = list(first["labels"].items())
        told = ", ".join(f"{label} {count}" for label, count in few[:8])
        screen.print(f"labels: {told}{f' and {len(few) - 8} more' if len(few) > 8 else ''}")
    for each in found.problems:
        console.line(f"\n{each.level}: {each.kind} in {each.split}: {len(each.places)}")
        console.line(f"  {WHY[each.kind][1]}")
        for place in each.places[:SHOWN]:
            console.line(f"  {with_flags(place) if each.kind == 'refused' else place}")
        if len(each.places) > SHOWN:
            console.line(f"  and {len(each.places) - SHOWN} more")
    if not found.problems:
        console.line("nothing is wrong")
