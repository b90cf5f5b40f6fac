"""The command that writes a page on prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Force, Json, Loaded, Model, backbone_of, names_of
from foreword.cli.completion import File
from foreword.cli.panels import DATA, OUTPUT
from foreword.cli.reading import USUAL, Read, Reading
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Seed, Whole
from foreword.data.folder import DEV
from foreword.data.rows import as_rows
from foreword.data.sample import first, hold_out
from foreword.data.write import check_apart
from foreword.display import console
from foreword.errors import UserError
from foreword.files import beside, check_place

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.prompt.prompt import Prompt
    from foreword.report.report import Report
    from foreword.reporter import Reporter
    from foreword.tasks.base import Bound

Section = Literal["quality", "changes", "explanation", "cost", "making"]


def report(
    prompt: Annotated[Path, Parameter(help="a prompt file")],
    /,
    *more: Annotated[Path, Parameter(help="further prompt files, to be set side by side")],
    data: Annotated[
        list[File],
        Parameter(
            help="rows with their answers; of several sets the first is looked at closely",
            group=DATA,
            negative="",
        ),
    ],
    train: Annotated[
        File | None,
        Parameter(help="the rows that it was tuned on: their score, and a probe", group=DATA),
    ] = None,
    shifted: Annotated[
        File | None, Parameter(help="rows from elsewhere, or from later", group=DATA)
    ] = None,
    rows: Annotated[
        Whole | None, Parameter(help="the first N after shuffling with the seed", group=DATA)
    ] = None,
    reading: Read = USUAL,
    out: Annotated[Path, Parameter(help="the page to write", group=OUTPUT)] = Path(
        "out/report.html"
    ),
    sections: Annotated[
        list[Section] | None,
        Parameter(
            help="these alone; else all but the explanation", group=OUTPUT, consume_multiple=True
        ),
    ] = None,
    explain: Annotated[
        bool,
        Parameter(help="add what the prompt has learned, which takes minutes", group=OUTPUT),
    ] = False,
    answers: Annotated[
        Path | None,
        Parameter(
            help="where answers are kept, so that none is asked for twice; else OUT.answers.jsonl",
            group=OUTPUT,
        ),
    ] = None,
    seed: Annotated[Seed, Parameter(help="decides rows, changes and intervals")] = 0,
    model: Model = None,
    loading: Loaded = USUALLY,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a page on a prompt: is it good, what did it change, what does it cost and break.

    Several prompts are set side by side, on every set of rows that they can be scored on. The page
    is one HTML file that needs nothing from elsewhere.
    """
    from foreword.prompt.prompt import Prompt
    from foreword.report.report import USUAL as USUAL_SECTIONS
    from foreword.report.report import report_on
    from foreword.tasks.fields import text_fields_of

    check_page(out)
    kept = out.with_suffix(".answers.jsonl") if answers is None else answers
    if check_place(kept) == check_place(out):
        raise UserError(f"--answers {kept}: is the page to write; name another file")
    check_apart(kept, *data, train, shifted)
    chosen: list[Any] = list(sections or USUAL_SECTIONS)
    chosen += ["explanation"] if explain and "explanation" not in chosen else []
    paths = [prompt, *more]
    loaded = {name: Prompt.load(path) for name, path in zip(names_of(paths), paths, strict=True)}
    fields = text_fields_of(next(iter(loaded.values())).task)

    def read(source: str) -> list[Any]:
        found = reading.rows(source, DEV, fields=fields)
        return found if rows is None else first(found, min(rows, len(found)), seed)

    sets = {source: read(source) for source in data}
    learned = None if train is None else reading.rows(train, fields=fields)
    elsewhere = None if shifted is None else read(shifted)
    prompts = _on_backbones(loaded, model, loading, force)
    if reading.skip_bad:  # of what only a task with its labels knows
        bound = next(iter(prompts.values())).bound
        sets = {name: _usable(reading, own, bound, name == data[0]) for name, own in sets.items()}
        learned, elsewhere = (own and reading.usable(own, bound) for own in (learned, elsewhere))
    page = report_on(
        prompts,
        sets[data[0]],
        train=learned,
        others={name: own for name, own in sets.items() if name != data[0]},
        shifted=elsewhere,
        sections=chosen,
        out=out,
        answers=kept,
        names={"data": data[0], "train": train or "TRAIN", "shifted": shifted or ""},
        seed=seed,
        report=CommandTerminal(),
    )
    say_report(page, out, as_json)


def _on_backbones(
    loaded: dict[str, Prompt], model: str | None, loading: Any, force: bool
) -> dict[str, Prompt]:
    """Put prompts on the models that they name, each of which is opened once."""
    opened: dict[tuple[str, ...], Backbone] = {}
    made = {}
    for name, prompt in loaded.items():
        about = prompt.backbone
        key = (about["name"], about["architecture"], about.get("pooling", ""))
        if key not in opened:
            opened[key] = backbone_of(prompt, model, loading)
        made[name] = prompt.on_backbone(opened[key], force=force)
    return made


def _usable(reading: Reading, rows: list[Any], bound: Bound, first: bool) -> list[Any]:
    """Leave bad rows out; a further set that has no others may be for another prompt, and stays."""
    try:
        return reading.usable(rows, bound)
    except UserError:
        if first:
            raise
        return rows


def write_page(
    prompt: Prompt,
    out: Path,
    train: Any,
    dev: Any,
    wanted: Mapping[str, Any],
    report: Reporter,
) -> Path | None:
    """Write the page of a run beside the prompt that it wrote: ``OUT.html``.

    Without ``dev`` rows it is on those that the run held back. Where there can be none, a line says
    why: the run itself has gone well.
    """
    from foreword.report.making import DRAWN
    from foreword.report.report import report_on

    if dev is None:
        by = prompt.task.class_field  # the same rows that training holds out
        train, dev = hold_out(as_rows(train, fields=prompt.task.pair), 0.1, prompt.seed or 0, by)
    page = beside(out, "html")
    try:
        report_on(
            {names_of([out])[0]: replace(prompt, where=str(out))},
            dev,
            train=train,
            out=page,
            answers=beside(out, "answers.jsonl"),
            names={
                "data": wanted.get("dev") or "dev rows",
                "train": wanted.get("train") or "TRAIN",
                **{n: str(wanted[n]) for n in DRAWN if wanted.get(n) is not None},
            },
            report=report,
        )
    except UserError as error:
        console.say(f"no report: {error}")
        return None
    return page


def say_report(page: Report, out: Path, as_json: bool = False) -> None:
    """Say where a page is, and its verdicts."""
    if as_json:
        found = [{"prompt": each.name, "verdict": each.verdict} for each in page.chapters]
        console.emit({"out": out, "prompts": found, "bytes": out.stat().st_size})
        return
    for each in page.chapters:
        if each.verdict is not None:
            console.line(f"{each.name}: {each.verdict}")
    console.line(f"{out}: {out.stat().st_size / 1024:.0f} KiB; open it in a browser")


def check_page(out: Path) -> None:
    """Raise UserError for a page that cannot be written, before anything is run."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: is no name of a page; name a file that ends in .html")
    check_place(out)
