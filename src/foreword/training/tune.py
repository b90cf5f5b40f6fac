"""Training: rows, a task and a method to a Prompt; all is checked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foreword.backbone.backbone import Backbone
from foreword.backbone.shared import backbone_of
from foreword.config.values import hash_of
from foreword.data.folder import DEV
from foreword.data.row import Row
from foreword.data.rows import TAKEN, Rows, as_rows
from foreword.data.sample import hold_out
from foreword.errors import UserError
from foreword.injection import Mixture
from foreword.methods.auto import Auto
from foreword.methods.base import Method, Trainable, finish, settle
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.prompt.texts import check_without_texts, in_one_line, texts_in
from foreword.reporter import SILENT, Reporter, Reporters
from foreword.tasks.base import Bound, Task
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.objective import Objective
from foreword.tasks.registry import name_of as task_name
from foreword.terminal import usual_reporter
from foreword.training import checkpoint
from foreword.training.configure import configure
from foreword.training.examples import encode
from foreword.training.log import Log, log_path
from foreword.training.loop import Loop
from foreword.training.provenance import (
    about_backbone,
    about_data,
    about_files,
    about_method,
    about_rows,
    about_task,
    build_prompt,
    dtype_name,
)
from foreword.training.run_state import check_out
from foreword.training.settings import Training, check_rate
from foreword.training.several_tasks import MixedObjective, Replay
from foreword.training.world import ALONE, World

DEV_SHARE = 0.1
"""The share of the training rows that is held back where no dev rows are given."""


def tune(
    model: Backbone | str | Path = "smollm2",
    task: Task | str = "classify",
    method: Method | str | None = None,
    train: Rows | None = None,
    dev: Rows | None = None,
    *,
    text: str | None = None,
    label: str | None = None,
    training: Training | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    report: Reporter | None = None,
    **settings: Any,
) -> Prompt:
    """Tune a prompt for a model on rows, and return it with the best dev score.

    ``fw.tune("smollm2", train=rows, text="review", label="stars")`` does what ``foreword train``
    does, with the same defaults and to the same bytes.

    ``model`` is a name (smollm2, a folder, a .gguf file, a hub id) or what ``fw.load`` gives.
    ``task`` and ``method`` are names or configurations: ``"classify"`` or ``fw.Classify(...)``,
    ``"prefix"``, ``"prefix+lora"`` or ``fw.Prefix(...)``. Without ``method`` it is the best for the
    task, its labels and rows, which a line says (:class:`Auto`). ``train`` and ``dev`` are
    whatever holds rows (:func:`as_rows`); without ``dev`` a tenth of the training rows is held
    back. ``text`` and ``label`` are the fields, or columns, that are read and learned, where they
    have other names than the task's.

    ``settings`` are those of the task, the method and the training that are given by name, as the
    flags of ``foreword train`` name them: ``template="Review: {text}"``, ``length=20``,
    ``epochs=2``, ``preset="fast"``. ``training`` gives those of the training as one value.

    With ``out`` the prompt is saved there, steps are logged beside it, and a run that was stopped
    goes on with ``resume`` to the same bytes. ``report`` hears lines that a person should read, and
    each step and dev score; by default they are shown on the terminal, or in the notebook.

    Raises UserError for wrong input before anything is written, and for a loss that is no longer
    finite (the last good checkpoint stays); Interrupted after Ctrl-C, when all is saved.
    """
    if train is None:
        raise UserError(f"there are no rows to train on; give `train`: {TAKEN}")
    chosen, by, how = configure(task, method, training, settings, text=text, label=label)
    return tune_prompt(
        backbone_of(model),
        chosen,
        by,
        train,
        dev,
        training=how,
        out=out,
        resume=resume,
        report=usual_reporter() if report is None else report,
    )


def tune_prompt(
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
    """Tune configurations as :func:`tune` does, and as other runs need it.

    In a ``world`` of several processes each works on its part of every batch; all return the same
    Prompt, and the first one alone writes and reports. ``objective`` returns what is learned in
    place of the task, such as another model's answers to its rows. ``replay`` mixes in rows of an
    earlier task.

    Raises UserError for wrong input before anything is written, and for a loss that is no longer
    finite (the last good checkpoint stays); Interrupted after Ctrl-C, when all is saved.
    """
    training = training or Training()
    report = report if world.first else SILENT
    target = None if out is None else Path(out)
    bound, method, run = prepare(
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
    about = about_method(method, run.learner.parameters, training)
    data = about_data(bound, method, run.examples.of_task(0), dev_rows, training)
    if again := data["dev"]["in_train"]:
        report.line(f"{again} of {len(dev_rows)} dev rows are in train too: their score flatters")
    if replay is not None:
        if training.no_texts:
            check_without_texts(replay.task)
        data["replay"] = {
            **about_rows(replay.rows),
            "share": replay.share,
            "task": about_task(replay.task),
        }
    config = {
        "method": about,
        "data": data,
        "task": about_task(task),
        "backbone": {**about_backbone(backbone), "dtype": dtype_name(backbone)},
    }
    follow(run, config, target, resume=resume, report=report)
    score = {run.objective.metric: run.scores[0], "rows": len(dev_rows)}
    with torch.no_grad():
        injection = trainable()
    if objective is None:
        seen = run.examples.of_task(0)
        if dev is None and all(bound.class_of(row) is not None for row in dev_rows):
            seen = [*seen, *dev_rows]  # no threshold is fitted to them
        injection = finish(method, bound, seen, injection)
    prompt = build_prompt(
        bound, injection, dev_rows, method=about, data=data, seed=training.seed, dev=score
    )
    if target is not None and world.first:
        prompt.save(target)
        say_texts(target, log_path(target), prompt, report)
        run.state.forget()
    world.wait()  # the file is there when any process goes on
    return prompt


def say_texts(file: Path, log: Path, prompt: Prompt, report: Reporter) -> None:
    """Say in one line what texts stand in files that were written, as they may be given away."""
    if texts := texts_in(prompt.metadata()):
        report.line(
            f"{file} and {log.name} hold texts of your rows ({in_one_line(texts)}); `no_texts` "
            "leaves them out"
        )


def follow(
    run: Loop,
    config: Mapping[str, Any],
    target: Path | None,
    *,
    resume: bool,
    report: Reporter,
) -> None:
    """Take a run from its start, or its checkpoint, to its end.

    ``config`` describes the run: it is the first line of the log, and a checkpoint of a run with
    another one is refused. With ``target`` a checkpoint and a log are kept beside that path.
    """
    world = run.world
    if target is not None:
        if world.first:
            check_out(target, run.trainable)
        run.state.keep_in(checkpoint.path_for(target), hash_of(config))
        if resume:
            report.line(run.state.restore(run.steps))
        elif run.state.forget():
            report.line(f"{target}: discarding an unfinished run; use `resume` to continue it")
        files = about_files(train=run.examples.of_task(0), dev=run.examples.dev_rows)
        report = Reporters([report, Log(log_path(target), files)])
    run.state.agree(hash_of(config))
    report = report if world.first else SILENT
    try:
        report.start(config, run.steps, run.state.progress.step)
        run.go(report)
    finally:
        report.done()


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
) -> tuple[Bound, Method, Loop]:
    """Return the task and the method, completed from the rows, and a run ready for its first step.

    Raises UserError for anything wrong with the settings or the rows.
    """
    name_of(method), task_name(task)  # what is not registered could not be saved
    training.check()
    check_rate(method.rate)
    task, train_rows, dev_rows = rows_for(backbone, task, train, dev, training, report)
    bound = task.bind(backbone)
    bound.check(train_rows, answers=True)
    bound.check(dev_rows, answers=True)
    if isinstance(bound, LabelExamples):
        bound.embed_demonstrations(report)
    if isinstance(method, Auto):
        method, why = method.choose(bound, train_rows)
        if why is not None:
            report.line(why)
    method = settle(method, bound, train_rows)
    trainable = method.build(bound, train_rows, training.seed)
    parts = Mixture.of(trainable.outline, 1).parts
    if bound.virtual and all(part.embeds is None for part in parts):
        raise UserError(
            f"the template places {bound.virtual} virtual tokens, which `method={name_of(method)}` "
            "does not have; use `method=soft` or ptuning, or leave [soft:...] out of the template"
        )
    for part in trainable.modules():
        for note in part.notes if isinstance(part, Trainable) else ():
            report.line(note)
    bound = bound.with_head() if trainable.has_head else bound
    learned = bound if objective is None else objective(bound)
    counts = None
    if replay is not None:
        if training.mixup:
            raise UserError("`mixup` would mix rows of different tasks; leave it or `replay` out")
        if training.contrastive:
            raise UserError(
                "`contrastive` would compare rows of different tasks; leave it or `replay` out"
            )
        counts = replay.counts(len(train_rows))
        old = replay.task.bind(backbone)
        old.check(replay.rows, answers=True)
        learned = MixedObjective([learned, old.with_head() if trainable.has_head else old])
        train_rows = [*train_rows, *(replace(row, task=1) for row in replay.rows)]
    examples = encode(
        backbone,
        learned,
        trainable.outline,
        train_rows,
        dev_rows,
        training,
        report,
        counts,
        class_of=bound.class_of,
        trained=sum(p.numel() for p in trainable.parameters() if p.requires_grad),
    )
    return bound, method, Loop(backbone, learned, trainable, examples, training, method.rate, world)


def rows_for(
    backbone: Backbone,
    task: Task,
    train: Rows,
    dev: Rows | None,
    training: Training,
    report: Reporter,
) -> tuple[Task, list[Row], list[Row]]:
    """Read the rows, complete the task from them, and hold rows out for dev if none are given."""
    rows = as_rows(train, fields=task.pair, report=report)
    if not rows:
        raise UserError("there are no training rows; give two or more")
    task = task.complete(rows, backbone)
    if dev is not None:
        held = as_rows(dev, split=DEV, name="dev row", fields=task.pair, report=report)
        if not held:
            raise UserError("there are no dev rows; give one or more, or leave dev out")
        return task.fill_from_rows(backbone, rows, training.seed, report), rows, held
    rows, held = hold_out(rows, DEV_SHARE, training.seed, by=task.label_field)
    report.line(f"no dev rows given: {len(held)} of the training rows are held back")
    return task.fill_from_rows(backbone, rows, training.seed, report), rows, held
