"""The commands: train, eval, predict, info, export, import, demo; some have files of their own."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from foreword.backbone.backbone import Backbone
from foreword.backbone.sources import folder_of
from foreword.cli import continual, show
from foreword.cli import demo as demonstration
from foreword.cli import find_rate as finder
from foreword.cli.augment import augment
from foreword.cli.common import (
    Columns,
    Device,
    Dtype,
    Json,
    Model,
    Quantize,
    backbone_of,
    some_rows,
)
from foreword.cli.compare import compare
from foreword.cli.compose import compose
from foreword.cli.compress import compress
from foreword.cli.data import data
from foreword.cli.flags import Flags
from foreword.cli.library import library
from foreword.cli.multitask import multitask
from foreword.cli.pretrain import pretrain
from foreword.cli.settings import settings, task_alone
from foreword.cli.words import columns, parse_windows
from foreword.compose.ensemble import load
from foreword.config import plain
from foreword.data.read import read_rows
from foreword.data.sample import drawn, others
from foreword.data.shapes import canonical
from foreword.errors import UserError
from foreword.evaluate import evaluate, over_windows, with_scores
from foreword.export.peft import from_peft, to_peft
from foreword.loop import Interrupted
from foreword.parallel import ALONE, World, joined
from foreword.prompt import Prompt, rows_of, write_whole
from foreword.train import tune
from foreword.watch import Bar, trackers

app = App(
    name="foreword",
    help="Tunes a few words in front of a frozen language model.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # Ctrl-C is answered below
)

app.command(augment)
app.command(compare)
app.command(compress)
app.command(data)
app.command(multitask)
app.command(pretrain)
app.command(compose)
app.command(library)

NO_FLAGS = Flags()
Force = Annotated[bool, Parameter(negative="", help="run on another model than the prompt's own")]


@app.command
def train(
    *,
    flags: Annotated[Flags, Parameter(name="*")] = NO_FLAGS,  # type: ignore[valid-type]
    config: Annotated[Path | None, Parameter(help="YAML or TOML run file; flags win")] = None,
    resume: Annotated[bool, Parameter(negative="", help="go on where the run stopped")] = False,
    find_lr: Annotated[
        bool, Parameter(negative="", help="suggest a learning rate instead; nothing is written")
    ] = False,
    as_json: Json = False,
    world: Annotated[World, Parameter(parse=False)],
) -> None:
    """Tune a prompt on rows of data and write it to one file.

    Started by torchrun or accelerate launch, several processes share the work.
    """
    began = time.monotonic()
    made = settings(flags, config)
    wanted = made.plain
    for name in ("train",) if find_lr else ("train", "out"):
        if wanted[name] is None:
            raise UserError(f"--{name} is missing")
    named = columns(wanted["columns"])
    seed = made.training.seed
    by = plain(made.task).get("label_field")
    every = read_rows(wanted["train"], columns=named)
    rows = drawn(every, wanted["rows"], wanted["per_label"], seed, by)
    if find_lr:
        finder.run(made, rows, world, as_json)
        return
    out = Path(wanted["out"])
    dev = others(every, rows, wanted["per_label"], seed, by)
    if wanted["dev"] is not None:
        dev = some_rows(wanted["dev"], named, wanted["dev_rows"], seed)
    elif dev is not None:
        show.say(f"no dev rows given: {len(dev)} others are taken, {wanted['per_label']} a label")
    test = None if wanted["test"] is None else some_rows(wanted["test"], named, None, seed)
    told = trackers(wanted["report_to"] or (), out)
    device = world.device(wanted["device"])
    with world.first_alone() as alone:
        if alone and world.size > 1:
            folder_of(wanted["model"])  # unpacked or downloaded once, not by each process
    old = continual.Old.of(made)
    backbone = Backbone.load(
        wanted["model"], dtype=wanted["dtype"], device=device, quantize=wanted["quantize"]
    )
    if wanted["shard"]:
        if world.size == 1:
            raise UserError(
                "--shard spreads a model over processes; start them with torchrun "
                "--nproc-per-node N -- -m foreword train ..."
            )
        backbone.shard()
        world = replace(world, sharded=True)
    if test is not None:
        shape, rows = canonical(rows)
        _, test = canonical(test)
        made.task.completed(rows, shape, backbone).bind(backbone).check(test, answers=True)
    before = old.score(backbone, world) if old is not None else None
    effective = show.Effective()
    prompt = tune(
        backbone,
        made.task,
        made.method,
        rows,
        dev,
        training=made.training,
        out=out,
        resume=resume,
        watchers=[effective, Bar(), *told],
        announce=show.say,
        world=world,
        replay=None if old is None else old.replay,
    )
    if not world.first and not world.sharded:  # which scores in step
        return
    result: dict[str, Any] = {"out": str(out), "dev": prompt.scores["dev"]}
    if test is not None:
        with show.counting() as bars:
            scores = evaluate(prompt, test, train=rows, seed=seed, announce=bars)
        prompt = with_scores(prompt, "test", scores)
        result["test"] = prompt.scores["test"]
    if old is not None and before is not None:
        prompt, result = old.report(prompt, before, result)
    if not world.first:
        return
    if test is not None or before is not None:
        prompt.save(out)
    result["seconds"] = round(time.monotonic() - began, 2)
    result["parameters"] = sum(tensor.numel() for _, tensor in prompt.injection.tensors())
    if as_json:
        show.emit({**result, "config": effective.config})
        return
    dev_scores = ", ".join(f"{k} {v:.2f}" for k, v in result["dev"].items() if k != "rows")
    show.line(
        f"{out}: {out.stat().st_size / 1024:.0f} KiB, {result['parameters']} numbers; "
        f"dev {dev_scores} on {result['dev']['rows']} rows; {result['seconds']:.0f} s"
    )
    if test is not None:
        show.out().print(show.scores(scores, "test"))
        show.leaks(scores)
    if "old" in result:
        show.out().print(continual.table(result))


@app.command(name="eval")
def evaluate_command(
    prompt: Path,
    *,
    data: Annotated[str, Parameter(help="rows with their answers")],
    baselines: Annotated[
        bool, Parameter(negative="", help="score the frozen model without the prompt too")
    ] = False,
    rows: Annotated[int | None, Parameter(help="the first N after shuffling with the seed")] = None,
    windows: Annotated[
        str | None, Parameter(help="4,8,all: the score where so many first tokens are read")
    ] = None,
    columns_: Columns = None,
    seed: Annotated[int, Parameter(help="decides the rows and the intervals")] = 0,
    model: Model = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score a prompt on rows, with intervals, beside the frozen model where that is asked for."""
    sizes = None if windows is None else parse_windows(windows)
    if sizes is not None and baselines:
        raise UserError("--windows scores the prompt alone; leave out --baselines")
    chosen = some_rows(data, columns(columns_), rows, seed)
    if sizes is not None:
        one = Prompt.load(prompt)
        one = one.onto(
            backbone_of(one, model, dtype, device, quantize), force=force, where=str(prompt)
        )
        with show.counting() as bars:
            result = over_windows(one, chosen, sizes, seed=seed, announce=bars)
        if as_json:
            show.emit(result)
            return
        show.line(f"{prompt} on {data}: {result['rows']} rows, 95% intervals")
        show.out().print(show.curve(result))
        return
    loaded = load(prompt)
    backbone = backbone_of(loaded, model, dtype, device, quantize)
    loaded = loaded.onto(backbone, force=force, where=str(prompt))
    with show.counting() as bars:
        result = evaluate(loaded, chosen, baselines=baselines, seed=seed, announce=bars)
    if as_json:
        show.emit(result)
        return
    console = show.out()
    show.line(f"{prompt} on {data}: {result['rows']} rows, 95% intervals")
    if result["cut"]:
        show.line(f"{result['cut']} rows were too long and were cut")
    if result.get("windowed"):
        show.line(f"{result['windowed']} rows were read in windows; the likeliest answer counts")
    console.print(show.scores(result, "prompt"))
    show.leaks(result)
    if show.FURTHER.keys() & result.keys():
        console.print()
        console.print(show.scores(result, "prompt", show.FURTHER))
    if "per_class" in result:
        console.print()
        console.print(show.per_class(result))
    if "confusion" in result:
        console.print()
        console.print(show.confusion(result))
    for name, signature in result.get("signatures", {}).items():
        show.line(f"{name}: {signature}")


@app.command
def predict(
    prompt: Path,
    texts: Annotated[list[str] | None, Parameter(help="texts to answer")] = None,
    /,
    *,
    data: Annotated[str | None, Parameter(help="rows to answer, instead of texts")] = None,
    out: Annotated[Path | None, Parameter(help="JSONL file to write, one object a row")] = None,
    columns_: Columns = None,
    model: Model = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Answer texts, or the rows of a file."""
    if (data is None) == (not texts):
        raise UserError("give texts to answer, or --data F")
    loaded = load(prompt)
    backbone = backbone_of(loaded, model, dtype, device, quantize)
    loaded = loaded.onto(backbone, force=force, where=str(prompt))
    bound = loaded.bound()
    if data is not None:
        _, given = canonical(read_rows(data, columns=columns(columns_)), targets=False)
    else:
        given = rows_of(texts or (), bound)
    with show.counting() as bars:
        progress = bars("predicting", len(given))
        found = loaded.answers(given, progress=progress)
    cut = sum(bool(answer["cut"]) for answer in found)
    if cut:
        show.say(f"{cut} of {len(found)} rows were too long and were cut")
    lines = [
        {**{name: row.fields[name] for name in bound.fields}, **_rounded(answer)}
        for row, answer in zip(given, found, strict=True)
    ]
    if out is not None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(out, text.encode())
    if as_json:
        show.emit({"rows": len(lines), "cut": cut, "out": out, "predictions": lines})
        return
    if out is not None:
        show.say(f"{out}: {len(lines)} rows")
        return
    for answer in found:
        value = answer[bound.answer]
        show.line(show.told(value, answer.get("probabilities", {})))


@app.command
def info(prompt: Path, *, as_json: Json = False) -> None:
    """Show what a prompt file holds; no model is loaded."""
    loaded = load(prompt)
    facts = {"file": str(prompt), "bytes": prompt.stat().st_size, **loaded.facts()}
    if as_json:
        shapes = {name: list(tensor.shape) for name, tensor in loaded.tensors().items()}
        show.emit({**facts, "tensors": shapes})
        return
    show.out().print(show.facts(facts))


@app.command
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
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a prompt as another library lays it out."""
    if to != "peft":
        raise UserError(f"--to {to}: unknown; known: peft")
    loaded = Prompt.load(prompt)
    if model is not None:
        backbone = backbone_of(loaded, model, dtype, device, quantize)
        loaded = loaded.onto(backbone, force=force, where=str(prompt))
    to_peft(loaded, folder, kind=kind)
    if as_json:
        show.emit({"out": str(folder), "format": to})
    else:
        show.line(f"{folder}: written for peft")


@app.command(name="import")
def import_command(
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
        show.emit({"out": str(path)})
    else:
        show.line(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(help="the prompt file to write")] = Path(
        "out/support.safetensors"
    ),
    as_json: Json = False,
) -> None:
    """Tune a customer-service intent classifier, score it, and answer a few lines."""
    demonstration.run(out, as_json)


def _rounded(value: Any) -> Any:
    """Round numbers to six decimals, those in lists and objects too; leave out ``cut``."""
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items() if key != "cut"}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 for a user's mistake, 130 for Ctrl-C, 1 for a bug.

    Of several processes only the first prints results, and only one says why the run ended.
    """
    try:
        with joined() as world:
            return _run(arguments, world)
    except UserError as error:  # there is nobody to join
        return _told(ALONE, 2, str(error))


def _run(arguments: Sequence[str] | None, world: World) -> int:
    try:
        with world.muted():
            command, bound, more = app.parse_args(arguments, exit_on_error=False, print_error=False)
            if world.size > 1 and "world" not in more:
                raise UserError("only train runs in several processes; start one of this command")
            command(*bound.args, **bound.kwargs, **dict.fromkeys(more, world))
    except UserError as error:
        return _told(world, 2, " ".join(str(error).splitlines()))
    except CycloptsError as error:
        return _told(world, 2, " ".join(str(error).split()))
    except Interrupted as error:
        return _told(world, 130, f"{error}; the same command with --resume goes on")
    except KeyboardInterrupt as error:
        return _told(world, 130, str(error) or "interrupted")
    except BrokenPipeError:
        return 0
    except SystemExit as error:  # which rich makes of a closed pipe
        if isinstance(error.__context__, BrokenPipeError):
            return 0
        raise
    except Exception as error:
        bug = "this is a bug in Foreword, not a mistake of yours; please report it"
        return _told(world, 1, bug, error)
    return 0


def _told(world: World, status: int, why: str, bug: Exception | None = None) -> int:
    """Say why the run ends, unless another process has; return the exit status."""
    if world.claim():
        if bug is not None:
            traceback.print_exception(bug)
        show.say(f"foreword: {why}")
    return status


def main() -> None:
    """Run the command line and exit; quietly where whoever reads the output has left."""
    status = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
