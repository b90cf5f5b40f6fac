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
from foreword.data.rows import TAKEN, Rows
from foreword.errors import UserError
from foreword.grammar import counted, is_are
from foreword.methods.base import Method
from foreword.prompt.prompt import Prompt
from foreword.prompt.texts import check_without_texts, in_one_line, texts_in
from foreword.reporter import SILENT, Reporter, Reporters
from foreword.tasks.base import Bound, Task
from foreword.tasks.objective import Objective
from foreword.terminal import usual_reporter
from foreword.training import checkpoint
from foreword.training.configure import configure
from foreword.training.log import Log, log_path
from foreword.training.loop import Loop
from foreword.training.prepare import build_run, prepare
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
from foreword.training.settings import Training
from foreword.training.several_tasks import Replay
from foreword.training.world import ALONE, World

REFIT = "refit"
"""What the second run of a prompt is called in the name of its checkpoint."""


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
    training = run.training
    about = about_method(method, run.learner.parameters, training)
    data = about_data(bound, method, run.examples.of_task(0), dev_rows, training)
    if twice := data["dev"]["in_train"]:
        n = len(dev_rows)
        report.line(
            f"{twice} of {counted(n, 'dev row')} {is_are(n)} in train too: their score flatters"
        )
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
    learned = bound.fit_on_dev(dev_rows, injection)
    runs = [run]
    if training.refit == "on" and not _is_whole(run):
        about = about_method(method, run.learner.parameters, replace(training, refit="off"))
    elif training.refit == "on":
        rows, epochs = [*run.examples.of_task(0), *dev_rows], run.state.progress.step
        every = replace(training, epochs=max(1, epochs // run.per_epoch), patience=None)
        _, _, again = build_run(
            backbone,
            task,
            method,
            rows,
            (),
            every,
            SILENT,
            world,
            objective=objective,
            replay=replay,
        )
        name = f"once more, on all {len(rows)} rows"
        report.line(f"training {name}")
        with report.bar(name, again.steps) as moved:
            follow(again, config, target, REFIT, resume=resume, report=_Moves(moved))
        runs.append(again)
        with torch.no_grad():
            injection = again.trainable()
    prompt = build_prompt(
        bound, injection, learned, method=about, data=data, seed=training.seed, dev=score
    )
    if target is not None and world.first:
        prompt.save(target)
        say_texts(target, log_path(target), prompt, report)
        for each in runs:
            each.state.forget()
    world.wait()  # the file is there when any process goes on
    return prompt


def _is_whole(run: Loop) -> bool:
    """Whether a run came to its end, and nobody said that there is no more time."""
    patience, progress = run.training.patience, run.state.progress
    return progress.step == run.steps or (patience is not None and progress.worse >= patience)


class _Moves(Reporter):
    """Moves a bar by the steps of a run."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        self.moved = moved

    def start(self, config: Mapping[str, Any], steps: int, done: int) -> None:
        """Move the bar to where a resumed run goes on."""
        self.moved(done)

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Move the bar by one."""
        self.moved(1)


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
    part: str = "",
    *,
    resume: bool,
    report: Reporter,
) -> None:
    """Take a run from its start, or its checkpoint, to its end.

    ``config`` describes the run: it is the first line of the log, and a checkpoint of a run with
    another one is refused. With ``target`` a checkpoint and a log are kept beside that path; of a
    further ``part`` of what writes it, a checkpoint alone.
    """
    world = run.world
    if target is not None:
        if world.first:
            check_out(target, run.trainable)
        run.state.keep_in(checkpoint.path_for(target, part), hash_of(config))
        if resume:
            report.line(run.state.restore(run.steps))
        elif run.state.forget():
            report.line(f"{target}: discarding an unfinished run; use `resume` to continue it")
        if not part:
            if not resume and world.first:
                checkpoint.remove(checkpoint.path_for(target, REFIT))
            files = about_files(train=run.examples.of_task(0), dev=run.examples.dev_rows)
            report = Reporters([report, Log(log_path(target), files)])
    run.state.agree(hash_of(config))
    report = report if world.first else SILENT
    try:
        report.start(config, run.steps, run.state.progress.step)
        run.go(report)
    finally:
        report.done()
