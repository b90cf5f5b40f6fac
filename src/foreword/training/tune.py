"""Training: rows, a task and a method to a Prompt; all is checked before the first step."""

from __future__ import annotations

import glob
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.config.values import hash_of, plain
from foreword.data.duplicates import marks, overlap
from foreword.data.hub import DEV
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import digest, hold_out
from foreword.errors import UserError
from foreword.methods.base import Method, Trainable
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.reporter import SILENT, Reporter, Reporters
from foreword.tasks.base import Bound, Objective, Task
from foreword.tasks.registry import name_of as task_name
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.training import checkpoint
from foreword.training.examples import encode
from foreword.training.log import Log
from foreword.training.loop import Loop
from foreword.training.settings import Training, check_rate
from foreword.training.several_tasks import MixedObjective, Replay
from foreword.training.world import ALONE, World


def tune(
    backbone: Backbone,
    task: Task,
    method: Method,
    train: Rows,
    dev: Rows | None = None,
    *,
    training: Training | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    report: Reporter = SILENT,
    world: World = ALONE,
    objective: Callable[[Bound], Objective] | None = None,
    replay: Replay | None = None,
) -> Prompt:
    """Tune a method's parameters for a task and return the Prompt with the best dev score.

    ``train`` and ``dev`` are whatever holds rows (data/rows.py); without ``dev`` a tenth of the
    training rows is held back. With ``out`` the Prompt is saved there, steps are logged beside it,
    and a run that was stopped goes on with ``resume`` to the same bytes. ``report`` hears lines
    that a person should read (rows cut, rows held back), and each step and dev score. In a
    ``world`` of several processes each works on its part of every batch; all return the same
    Prompt, and the first one alone writes and reports. ``objective`` makes of the task what is
    learned in its place, such as another model's answers to its rows. ``replay`` mixes rows of an
    earlier task in.

    Raises UserError for wrong input before anything is written, and for a loss that is no longer
    finite (the last good checkpoint stays); Interrupted after Ctrl-C, when all is saved.
    """
    training = training or Training()
    report = report if world.first else SILENT
    target = None if out is None else Path(out)
    bound, run = prepare(
        backbone,
        task,
        method,
        train,
        dev,
        training,
        report,
        world,
        objective=objective,
        replay=replay,
    )
    task, trainable, dev_rows = bound.task, run.trainable, run.examples.dev_rows
    about: dict[str, Any] = {
        "method": {
            "name": name_of(method),
            **plain(method),
            "trained": sum(parameter.numel() for parameter in run.learner.parameters),
            "training": plain(training),
        },
        "data": provenance(bound, method, run.examples.of_task(0), dev_rows, training.seed),
    }
    if again := about["data"]["dev"]["in_train"]:
        report.line(f"{again} of {len(dev_rows)} dev rows are in train too: their score flatters")
    if replay is not None:
        about["data"]["replay"] = {
            **digested(replay.rows),
            "share": replay.share,
            "task": {"name": task_name(replay.task), **plain(replay.task)},
        }
    config = {
        **about,
        "task": {"name": task_name(task), **plain(task)},
        "backbone": {**about_backbone(backbone), "dtype": dtype_name(backbone)},
    }
    follow(run, config, target, resume=resume, report=report)
    with torch.no_grad():
        injection = trainable().map(lambda tensor: tensor.detach().clone())
    prompt = Prompt(
        injection=injection,
        task=bound.fit_on_dev(dev_rows, injection),
        backbone=about_backbone(backbone),
        seed=training.seed,
        versions=versions(),
        scores={
            "dev": {run.objective.metric: run.state.progress.best_score, "rows": len(dev_rows)}
        },
        on=backbone,
        **about,
    )
    if target is not None and world.first:
        prompt.save(target)
        run.state.forget()
    world.wait()  # the file is there when any process goes on
    return prompt


def follow(
    run: Loop,
    config: Mapping[str, Any],
    target: Path | None,
    *,
    resume: bool,
    report: Reporter,
) -> None:
    """Take a run from its start, or its checkpoint, to its end; its best parameters are then set.

    ``config`` says all that the run is of: it begins the log, and a checkpoint of another is
    refused. With ``target`` a checkpoint and a log stand beside that path.
    """
    world = run.world
    if target is not None:
        if world.first:
            check_out(target, run.trainable)
        run.state.keep_in(checkpoint.path_for(target), hash_of(config))
        if resume:
            report.line(run.state.restore(run.steps))
        elif run.state.forget():
            report.line(f"{target}: discarding an unfinished run; use --resume to continue it")
        report = Reporters([report, Log(log_path(target))])
    run.state.agree(hash_of(config))
    report = report if world.first else SILENT
    try:
        report.start(config, run.steps, run.state.progress.step)
        run.go(report)
    finally:
        report.done()
    run.trainable.load_state_dict(run.state.best)


def prepare(
    backbone: Backbone,
    task: Task,
    method: Method,
    train: Rows,
    dev: Rows | None,
    training: Training,
    report: Reporter,
    world: World = ALONE,
    *,
    objective: Callable[[Bound], Objective] | None = None,
    replay: Replay | None = None,
) -> tuple[Bound, Loop]:
    """Return the task, completed from the rows, and a run that stands before its first step.

    Raises UserError for whatever is wrong with the settings or the rows.
    """
    name_of(method), task_name(task)  # what is not registered could not be saved
    training.check()
    check_rate(method.rate)
    task, train_rows, dev_rows = rows_for(backbone, task, train, dev, training, report)
    bound = task.bind(backbone)
    bound.check(train_rows, answers=True)
    bound.check(dev_rows, answers=True)
    trainable = method.build(bound, train_rows, training.seed)
    for part in trainable.modules():
        for note in part.notes if isinstance(part, Trainable) else ():
            report.line(note)
    bound = bound.with_head() if trainable.has_head else bound
    learned = bound if objective is None else objective(bound)
    counts = None
    if replay is not None:
        counts = replay.counts(len(train_rows))
        old = replay.task.bind(backbone)
        old.check(replay.rows, answers=True)
        learned = MixedObjective([learned, old.with_head() if trainable.has_head else old])
        train_rows = [*train_rows, *(replace(row, task=1) for row in replay.rows)]
    examples = encode(
        backbone, learned, trainable.outline, train_rows, dev_rows, training, report, counts
    )
    return bound, Loop(backbone, learned, trainable, examples, training, method.rate, world)


def log_path(out: Path) -> Path:
    """Return where the log of a run that writes ``out`` stands."""
    return out.with_name(f"{out.name.removesuffix('.safetensors')}.log.jsonl")


def rows_for(
    backbone: Backbone,
    task: Task,
    train: Rows,
    dev: Rows | None,
    training: Training,
    report: Reporter,
) -> tuple[Task, list[Row], list[Row]]:
    """Read what is not read yet, complete the task from the rows, and hold rows back for dev."""
    rows = as_rows(train)
    if not rows:
        raise UserError("there are no training rows; give two or more")
    task = task.complete(rows, backbone)
    if dev is not None:
        held = as_rows(dev, split=DEV, name="dev row")
        if not held:
            raise UserError("there are no dev rows; give one or more, or leave dev out")
        return task.fill_from_rows(backbone, rows, training.seed, report), rows, held
    rows, held = hold_out(rows, 0.1, training.seed, by=task.label_field)
    report.line(f"no dev rows given: {len(held)} of the training rows are held back")
    return task.fill_from_rows(backbone, rows, training.seed, report), rows, held


def provenance(
    bound: Bound, method: Method, train: Sequence[Row], dev: Sequence[Row], seed: int
) -> dict[str, Any]:
    """Describe the data: counts and hashes, and rows as text for the baseline in context.

    ``in_train`` counts dev rows whose text is in train.
    """
    most = min(method.shots, len(train))
    shots = choose_demonstrations(bound, train, most, seed) if most else []
    return {
        "train": digested(train),
        "dev": {**digested(dev), "in_train": len(overlap(dev, train, bound.fields))},
        "demonstrations": [bound.demonstration(row) for row in shots],
        **({"marks": marks(train, bound.fields)} if len(train) <= MARKED else {}),
    }


MARKED = 1000
"""Training rows up to which a prompt file keeps the marks by which ``evaluate`` knows them."""


def digested(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what tells rows from others: their number and their hash."""
    return {"rows": len(rows), "sha256": digest(rows)}


def about_backbone(backbone: Backbone) -> dict[str, str]:
    """Return what a prompt file says of the backbone it was made on."""
    made_on = {
        "name": backbone.name,
        "architecture": backbone.architecture,
        "fingerprint": backbone.fingerprint,
    }
    return made_on if backbone.quantized is None else {**made_on, "quantize": backbone.quantized}


def dtype_name(backbone: Backbone) -> str:
    """Return the dtype of the backbone's weights as a word, such as float32."""
    return str(backbone.dtype).removeprefix("torch.")


def versions() -> dict[str, str]:
    """Return the versions of what a prompt was made with."""
    names = ("foreword", "torch", "transformers", "tokenizers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def check_out(out: Path, trainable: Trainable) -> None:
    """Say before the training what would fail after it: a folder, no permission, a full disk.

    Removes the temporary files that a killed run of the same prompt has left.
    """
    probe = out.with_name(f".{out.name}.probe")
    try:
        if out.is_dir():
            raise UserError(f"{out}: is a folder; name the file to write with `out`")
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in (out, checkpoint.path_for(out), log_path(out)):
            for left in out.parent.glob(f".{glob.escape(path.name)}.????????"):
                left.unlink(missing_ok=True)
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); choose another `out`"
        ) from None
    # A checkpoint holds parameters, the best ones and two moments; two of them while it is written.
    need = 9 * 4 * sum(p.numel() for p in trainable.parameters()) + 2**20
    if free < need:
        raise UserError(
            f"{out.parent}: {free / 2**20:.1f} MiB are free, and the prompt with its checkpoints "
            f"takes up to {need / 2**20:.1f} MiB; make room or choose another `out`"
        )
