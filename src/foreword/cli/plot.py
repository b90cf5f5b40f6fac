"""The command that draws the curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import Json
from foreword.display import console
from foreword.grammar import counted
from foreword.training.log import log_path, read_curves


def plot(
    log: Annotated[Path, Parameter(help="the log of a run, NAME.log.jsonl, or its prompt file")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="the picture to write: .png, .svg or .pdf; else NAME.png")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a run's loss and dev scores over its steps, also while it runs."""
    from foreword.display.pictures import check_picture, draw_curves

    source = log_path(log) if log.suffix == ".safetensors" else log
    name = source.name.removesuffix(".jsonl").removesuffix(".log")
    target = source.with_name(f"{name}.png") if out is None else out
    check_picture(target)
    curves = read_curves(source)
    draw_curves(curves, name, target)
    if as_json:
        scores = {metric: points[-1][1] for metric, points in curves.scores.items()}
        console.emit({"out": target, "steps": len(curves.steps), "scores": scores})
    else:
        console.line(f"{target}: {counted(len(curves.steps), 'step')}")
