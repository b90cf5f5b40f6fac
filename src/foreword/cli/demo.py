"""The demo: the main job on a customer-service data set, from rows to answers."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Annotated

from cyclopts import Parameter

from foreword.cli.common import Json
from foreword.cli.report import check_page, write_page
from foreword.cli.terminal import CommandTerminal
from foreword.display import console, tables
from foreword.errors import UserError
from foreword.files import beside
from foreword.training.settings import Training

LINES = (
    "my parcel says delivered but there is nothing at my door",
    "can you put the money back on my card, the kettle was broken",
    "do these boots run small?",
    "that was quick, you have made my day",
)

NEXT = (
    '{foreword} predict {out} "where is my parcel?"',
    '{foreword} labels add {out} "gift card" --description "about gift cards" --out {more}',
    "{foreword} train --train {rows} --out {own}  # or a table of yours",
)
"""What to do next: commands that run as they stand."""


def folder() -> Path:
    """Return the folder of the demo's rows: of the package, which links to that of the examples."""
    for found in (Path(__file__).with_name("support"), Path("examples", "support")):
        if found.is_dir():
            return found
    raise UserError("the demo's rows are not here: run it in a copy of the source tree")


def demo(
    *,
    out: Annotated[Path, Parameter(help="the prompt file to write")] = Path(
        "out/support.safetensors"
    ),
    report: Annotated[
        bool, Parameter(help="end in a page on the prompt beside it, OUT.html")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tune a customer-service intent classifier, score it, and answer a few lines."""
    from foreword.backbone.backbone import Backbone
    from foreword.evaluation.evaluate import evaluate, with_scores
    from foreword.methods.auto import Auto
    from foreword.methods.prefix import Prefix
    from foreword.tasks.classify import Classify
    from foreword.training.tune import tune_prompt

    began = time.monotonic()
    if report:
        check_page(beside(out, "html"))
    rows = folder()
    console.say(f"rows: {rows}")
    terminal = CommandTerminal()
    backbone = Backbone.load("smollm2", report=terminal)
    prompt = tune_prompt(
        backbone,
        Classify(template="Customer: {text}\nIntent:"),
        Auto(Prefix(shots=10)),
        rows / "train.jsonl",
        rows / "dev.jsonl",
        training=Training(epochs=1, batch_size=8),
        out=out,
        report=terminal,
    )
    train = rows / "train.jsonl"
    scores = evaluate(prompt, rows / "test.jsonl", baselines=True, train=train, report=terminal)
    prompt = with_scores(prompt, "test", scores)
    prompt.save(out)
    answers = list(zip(LINES, prompt.predict(LINES), strict=True))
    names = {name: str(rows / f"{name}.jsonl") for name in ("train", "dev")}
    page = None
    if report:
        page = write_page(prompt, out, train, rows / "dev.jsonl", names, terminal)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        written = {} if page is None else {"report": str(page)}
        found = {**scores, "out": str(out), **written, "seconds": seconds}
        console.emit({**found, "answers": dict(answers)})
        return
    screen = console.out()
    screen.print(tables.scores(scores, "prompt"))
    console.say_leads(scores)
    screen.print()
    for line, label in answers:
        console.line(f"{label:>17}  {line}")
    if page is not None:
        console.line(f"\n{page}: a page on it; open it in a browser")
    size = out.stat().st_size / 1024
    console.line(f"\n{seconds:.0f} s; the prompt is {out} ({size:.0f} KiB). Next:\n")
    for command in commands(out, rows / "train.jsonl"):
        console.line(f"  {command}")


def commands(out: Path, rows: Path) -> list[str]:
    """Return what to do next with the prompt of the demo and its rows."""
    paths = {
        "out": out,
        "more": out.with_name("more.safetensors"),
        "own": out.with_name("mine.safetensors"),
        "rows": rows,
    }
    words = {name: quote(str(path)) for name, path in paths.items()}
    called = Path(sys.argv[0])
    here = "foreword" if which("foreword") or called.name != "foreword" else quote(str(called))
    return [command.format(foreword=here, **words) for command in NEXT]
