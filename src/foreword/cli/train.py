"""The command that tunes a prompt on rows of data."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from foreword.cli.common import Json, Resume, Verbose
from foreword.cli.flags import NO_FLAGS, Flags
from foreword.cli.panels import FURTHER, OUTPUT, TRAINING
from foreword.cli.reading import Reading
from foreword.cli.report import check_page, write_page
from foreword.cli.terminal import CommandTerminal
from foreword.cli.words import unescaped
from foreword.data.folder import DEV, TEST
from foreword.data.rows import as_rows
from foreword.data.sample import draw, others
from foreword.display import comparison, console, tables
from foreword.display.facts import facts
from foreword.errors import UserError
from foreword.files import beside
from foreword.grammar import counted, is_are
from foreword.reporter import Reporters
from foreword.training.log import log_path
from foreword.training.presets import after, gives_up
from foreword.training.trackers import trackers
from foreword.training.world import World

if TYPE_CHECKING:
    from foreword.backbone.backbone import Backbone
    from foreword.data.row import Row
    from foreword.prompt.prompt import Prompt

SHOWN = 240
"""Characters of a sample's text that are shown."""


def train(
    *,
    flags: Annotated[Flags, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    config: Annotated[
        Path | None, Parameter(help="YAML or TOML run file; flags win", group=TRAINING)
    ] = None,
    frame: Annotated[
        str | None,
        Parameter(
            help='text with virtual tokens in front of the template: "Please [soft:10]."',
            group=("Task", FURTHER),
        ),
    ] = None,
    resume: Resume = False,
    find_lr: Annotated[
        bool,
        Parameter(
            help="suggest a learning rate instead; nothing is written", group=(TRAINING, FURTHER)
        ),
    ] = False,
    report: Annotated[
        bool,
        Parameter(help="write a page on the prompt beside it, OUT.html", group=OUTPUT),
    ] = False,
    verbose: Verbose = False,
    as_json: Json = False,
    world: Annotated[World, Parameter(parse=False)],
) -> None:
    """Tune a prompt on rows of data and write it to one file.

    Started by torchrun or accelerate launch, several processes share the work.
    """
    from foreword.backbone.load.sources import folder_of
    from foreword.cli import continual, find_rate
    from foreword.cli.settings import settings
    from foreword.evaluation.evaluate import evaluate, with_scores
    from foreword.tasks.fields import text_fields_of
    from foreword.training.tune import tune_prompt

    began = time.monotonic()
    made = settings(flags, config)
    wanted = made.plain
    for name in ("train",) if find_lr else ("train", "out"):
        if wanted[name] is None:
            raise UserError(f"--{name} is missing")
    if wanted["preset"] is not None:
        console.say(gives_up(wanted["preset"]))
    reading, fields = Reading.of(wanted), text_fields_of(made.task)
    seed = made.training.seed
    by = made.task.class_field
    check = made.task.check_answer
    every = reading.rows(wanted["train"], fields=fields, check=check)
    rows = draw(every, wanted["rows"], wanted["per_label"], seed, by)
    if frame is not None and wanted["source"] is not None:
        raise UserError("--frame beside --from: what goes on keeps its template")
    if find_lr:
        if frame is not None:
            raise UserError("--find-lr goes without --frame; write it into --template")
        find_rate.run(made, rows, world, as_json)
        return
    out = Path(wanted["out"])
    if report and wanted["shard"]:
        raise UserError("--report asks the whole model in one process; leave out --shard")
    if report:
        check_page(beside(out, "html"))
    dev = others(every, rows, wanted["per_label"], seed, by)
    if wanted["dev"] is not None:
        n = wanted["dev_rows"]
        dev = reading.rows(wanted["dev"], DEV, fields=fields, check=check, n=n, seed=seed)
    elif dev is not None:
        console.say(
            f"no dev rows given: {counted(len(dev), 'other')} {is_are(len(dev))} taken, "
            f"{wanted['per_label']} a label"
        )
    test = None
    if wanted["test"] is not None:
        test = reading.rows(wanted["test"], TEST, fields=fields, check=check)
    tracked = trackers(wanted["report_to"] or (), out)
    device = world.device(wanted["device"])
    with world.first_alone() as alone:
        if alone and world.size > 1:
            folder_of(wanted["model"])  # unpacked or downloaded once, not by each process
    old = continual.Old.of(made)
    backbone = made.backbone(device)
    if wanted["shard"]:
        world = _sharded(backbone, world)
    if frame is not None:
        rows = as_rows(rows)
        made = replace(made, task=made.task.framed(unescaped(frame), rows, backbone))
    if reading.skip_bad:
        rows, dev, test = reading.usable_by(made.task, backbone, rows, dev, test)
    if test is not None:
        rows, test = as_rows(rows), as_rows(test)
        made.task.complete(rows, backbone).bind(backbone).check(test, answers=True)
    before = old.score(backbone, world) if old is not None else None
    effective, terminal = console.Effective(verbose), CommandTerminal()
    prompt = tune_prompt(
        backbone,
        made.task,
        made.method,
        rows,
        dev,
        training=made.training,
        out=out,
        resume=resume,
        report=Reporters([effective, terminal, *tracked]),
        world=world,
        replay=None if old is None else old.replay,
    )
    if not world.first and not world.sharded:  # which scores in step
        return
    result: dict[str, Any] = {"out": str(out), "dev": prompt.scores["dev"]}
    if test is not None:
        scores = evaluate(prompt, test, train=rows, seed=seed, name="test", report=terminal)
        prompt = with_scores(prompt, "test", scores)
        result["test"] = prompt.scores["test"]
    if old is not None and before is not None:
        prompt, result = old.report(prompt, before, result)
    shown = next(each for each in (test, dev, rows) if each)
    if prompt.bound.answer == "text":
        result["sample"] = _sample(prompt, as_rows(shown[:1])[0])
    if not world.first:
        return
    if test is not None or before is not None:
        prompt.save(out)
    page = write_page(prompt, out, rows, dev, wanted, terminal) if report else None
    if page is not None:
        result["report"] = str(page)
    result["seconds"] = round(time.monotonic() - began, 2)
    result["parameters"] = sum(tensor.numel() for _, tensor in prompt.injection.tensors())
    if as_json:
        console.emit({**result, "config": effective.config})
        return
    dev_scores = ", ".join(f"{k} {v:.2f}" for k, v in result["dev"].items() if k != "rows")
    learned = ", before it learned these" if prompt.method["training"]["refit"] == "on" else ""
    console.line(
        f"{out}: {out.stat().st_size / 1024:.0f} KiB, {result['parameters']} numbers; "
        f"dev {dev_scores} on {counted(result['dev']['rows'], 'row')}{learned}; "
        f"{result['seconds']:.0f} s"
    )
    if test is not None:
        console.out().print(tables.scores(scores, "test"))
        console.warn_of_leaks(scores)
    if "old" in result:
        console.out().print(comparison.old_and_new(result))
    if "sample" in result:
        console.line(f"\na sample, {result['sample'].pop('row')}")
        texts = {name: _shortened(text) for name, text in result["sample"].items()}
        console.out().print(facts(texts))
    if page is not None:
        console.line(f"{page}: a page on it; open it in a browser")
    console.say(f"curves: foreword plot {shlex.quote(str(log_path(out)))}")
    if wanted["preset"] is not None:
        console.say(after(wanted["preset"]))


def _sample(prompt: Prompt, row: Row) -> dict[str, str]:
    """Answer one row: its place, the fields that are read, the answer, and the right one."""
    bound = prompt.bound
    (answer,) = prompt.answers([row])
    fields = {name: str(row.fields[name]) for name in bound.fields if name in row.fields}
    right = bound.gold_answer(row)
    shown = right if isinstance(right, str) else right[0]
    return {"row": row.where, **fields, "answer": answer["text"], "right answer": shown}


def _shortened(text: str) -> str:
    """Put a text on one line, and cut one that is too long to be read at a glance."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _sharded(backbone: Backbone, world: World) -> World:
    """Spread the model over the processes of the run."""
    if world.size == 1:
        raise UserError(
            "--shard spreads a model over processes; start them with torchrun "
            "--nproc-per-node N -- -m foreword train ..."
        )
    backbone.shard()
    return replace(world, sharded=True)
