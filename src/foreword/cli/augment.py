"""The command that writes new rows for a classification."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from foreword.cli.common import USUALLY, Json, Loaded, Model, on_backbone
from foreword.cli.completion import File
from foreword.cli.flags import given, parameters_of
from foreword.cli.reading import USUAL as USUAL_READING
from foreword.cli.reading import Read
from foreword.cli.terminal import CommandTerminal
from foreword.cli.whole import Whole
from foreword.data.folder import DEV, TEST
from foreword.data.rows import as_rows
from foreword.data.write import check_apart
from foreword.display import console, tables
from foreword.errors import UserError
from foreword.grammar import counted
from foreword.training.settings import Training

Sampling = parameters_of("foreword.augmentation.rounds:Augment", "sampling")

USUAL = Sampling()


def augment(
    prompt: Annotated[Path, Parameter(help="a classifier tuned on the same rows")],
    /,
    *,
    data: Annotated[File, Parameter(help="the rows that it was tuned on")],
    out: Annotated[Path, Parameter(help="the .csv, .tsv or .jsonl file of new rows to write")],
    dev: Annotated[
        File | None, Parameter(help="rows to choose by: train without and with the new rows")
    ] = None,
    test: Annotated[File | None, Parameter(help="with --dev: rows to score both on")] = None,
    writer: Annotated[
        File | None, Parameter(help="a model that writes; else the prompt's own")
    ] = None,
    method: Annotated[
        Literal["prefix", "soft"], Parameter(help="of the writer's prompt")
    ] = "prefix",
    epochs: Annotated[Whole, Parameter(help="passes of the writer over the rows")] = 5,
    flags: Annotated[Sampling, Parameter(name="*")] = USUAL,  # type: ignore[valid-type]
    reading: Read = USUAL_READING,
    model: Model = None,
    loading: Loaded = USUALLY,
    no_texts: Annotated[
        bool, Parameter(help="leave texts of rows out of the writer's prompt file and its log")
    ] = False,
    resume: Annotated[
        bool, Parameter(help="go on with the writer's training where it stopped")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write new rows of each label, and keep those on which the prompt agrees.

    Texts that were sampled stay in a file beside --out, and are not sampled again.
    """
    from foreword.augmentation.augment import augment as do
    from foreword.augmentation.gain import gain, how_tuned
    from foreword.augmentation.rounds import Augment
    from foreword.config.values import plain
    from foreword.methods.base import Method
    from foreword.methods.prefix import Prefix
    from foreword.methods.soft import Soft
    from foreword.prompt.prompt import Prompt
    from foreword.tasks.fields import text_fields_of

    began = time.monotonic()
    if test is not None and dev is None:
        raise UserError("--test needs --dev: rows by which both trainings choose their best state")
    settings = Augment(**given(flags))
    settings.check()
    training = Training(epochs=epochs, seed=settings.seed, no_texts=no_texts)
    training.check()
    check_apart(out, data, dev, test)
    chosen = Prompt.load(prompt)
    if dev is not None:
        how_tuned(chosen)
    fields = text_fields_of(chosen.task)
    rows = as_rows(reading.rows(data, fields=fields))
    others = {
        name: as_rows(reading.rows(file, split, fields=fields))
        for name, file, split in (("dev", dev, DEV), ("test", test, TEST))
        if file is not None
    }
    loaded = on_backbone(chosen, prompt, model, loading)
    rows = reading.usable(rows, loaded.bound)
    others = {name: reading.usable(own, loaded.bound) for name, own in others.items()}
    for own in others.values():
        loaded.bound.check(own, answers=True)
    kind: Method = Prefix() if method == "prefix" else Soft()
    made = do(
        loaded,
        rows,
        out,
        settings,
        known=[row for own in others.values() for row in own],
        writer=None if writer is None else replace(loading, quantize=None).load(writer),
        method=kind,
        training=training,
        resume=resume,
        report=CommandTerminal("learning to write"),
    )
    report = plain(made)
    if "dev" in others:
        report["gain"] = gain(
            loaded, rows, out, others["dev"], others.get("test"), report=CommandTerminal()
        ).to_dict()
    report["seconds"] = round(time.monotonic() - began, 2)
    if as_json:
        console.emit(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    dropped = ", ".join(f"{count} {why}" for why, count in report["dropped"].items() if count)
    kept = ", ".join(f"{label} {count}" for label, count in report["kept"].items())
    console.line(f"{counted(report['sampled'], 'text')} sampled; dropped: {dropped or 'none'}")
    console.line(f"{report['out']}: {counted(sum(report['kept'].values()), 'row')} kept: {kept}")
    if "gain" in report:
        found = report["gain"]
        without = {**found["without"], "baselines": {"with the new rows": found["with"]}}
        console.line(f"scores on the {found['scored']} rows, 95% intervals")
        console.out().print(tables.scores(without, "without"))
