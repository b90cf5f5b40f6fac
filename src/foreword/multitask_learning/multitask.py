"""Several tasks in one run: separate prompts, or prompts derived from a shared one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from foreword.backbone.backbone import Backbone
from foreword.backbone.shared import backbone_of
from foreword.config.values import plain
from foreword.data.epochs import tempered
from foreword.data.folder import TEST
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError, nearest
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.injection import Injection, Mixture
from foreword.methods.auto import Auto
from foreword.methods.base import Method, Trainable, settle
from foreword.methods.registry import name_of
from foreword.multitask_learning.separate import Owners, SeparatePrompts, check_shared_pass
from foreword.multitask_learning.shared_prompt import SharedPrompt
from foreword.prompt.prompt import Prompt
from foreword.reporter import Prefixed, Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.classify import Classify
from foreword.tasks.registry import name_of as task_name
from foreword.terminal import usual_reporter
from foreword.training.configure import configure, make_task
from foreword.training.examples import encode
from foreword.training.log import log_path
from foreword.training.loop import Loop
from foreword.training.prepare import rows_for
from foreword.training.provenance import (
    about_backbone,
    about_data,
    about_method,
    about_task,
    build_prompt,
    dtype_name,
)
from foreword.training.run_state import check_out
from foreword.training.settings import Training, check_rate
from foreword.training.several_tasks import MixedObjective
from foreword.training.tune import follow, say_texts

OWN = ("shared", "multitask")
"""Names of files of the run itself, which no task may have."""


@dataclass(frozen=True)
class Member:
    """One of the tasks: its name, its settings, and whatever holds its rows (data/rows.py).

    ``task`` may be a name, such as ``"classify"``, with the usual settings.
    """

    name: str
    task: Task | str
    train: Rows
    dev: Rows | None = None
    test: Rows | None = None


@dataclass(frozen=True)
class Sharing:
    """What the tasks share, and how they are sampled.

    ``share`` "none" trains separate prompts; "mpt" trains one prompt, times a factor of ``rank``
    for each task (shared_prompt.py). ``mixing`` is the sampling temperature of the tasks: 1 is in
    proportion to their rows, and higher is more even (data/epochs.py).
    """

    share: Literal["none", "mpt"] = "none"
    rank: int = 1
    mixing: float = 1.0

    def check(self) -> None:
        """Raise UserError for an unknown kind of sharing."""
        if self.share not in get_args(Literal["none", "mpt"]):
            raise UserError(f"`share={self.share}`: {nearest(self.share, ('none', 'mpt'))}")


@dataclass(frozen=True)
class Outcome:
    """The prompts by the names of their tasks, and the shared prompt, if there is one."""

    prompts: Mapping[str, Prompt]
    shared: Prompt | None


def multitask(
    backbone: Backbone | str | Path,
    members: Sequence[Member],
    method: Method | str,
    out: str | Path,
    *,
    sharing: Sharing | None = None,
    training: Training | None = None,
    resume: bool = False,
    report: Reporter | None = None,
) -> Outcome:
    """Tune a prompt for each task, in mixed batches, and write the prompts to the folder ``out``.

    An epoch has as many rows as all tasks together, in the proportions of ``sharing.mixing``.
    Separate prompts keep the parameters of their best dev scores. Prompts with a shared one keep
    those of the best mean dev score, and a new task may start from ``shared.safetensors``.
    ``resume`` continues a run that was stopped, to the same bytes.

    Raises UserError for wrong input before anything is written.
    """
    report = usual_reporter() if report is None else report
    backbone, sharing, folder = backbone_of(backbone), sharing or Sharing(), Path(out)
    _, method, training = configure(Classify(), method, training, {})
    method = method.alone() if isinstance(method, Auto) else method  # heads cannot share a pass
    training = training.check()
    members, training = _check(members, training, sharing, method), training.settled()
    made = [_prepare(backbone, member, training, report) for member in members]
    bounds = [bound for bound, _, _ in made]
    rows = [Row(r.fields, r.where, t) for t, (_, own, _) in enumerate(made) for r in own]
    held = [Row(r.fields, r.where, t) for t, (_, _, own) in enumerate(made) for r in own]
    tests = [_read_test(bound, member) for bound, member in zip(bounds, members, strict=True)]
    counts = tempered([len(own) for _, own, _ in made], sharing.mixing)
    owners = Owners(tuple(row.task for row in rows), tuple(row.task for row in held))
    methods = [settle(method, bound, own) for bound, own, _ in made]
    if sharing.share == "mpt":  # of which there is one, that starts as the first task's
        methods = methods[:1] * len(made)
    trainable = _build(made, methods, sharing, training, owners)
    for note in (n for p in trainable.modules() if isinstance(p, Trainable) for n in p.notes):
        report.line(note)
    names = [member.name for member in members]
    objective, shares = MixedObjective(bounds), dict(zip(names, counts, strict=True))
    examples = encode(
        backbone,
        objective,
        trainable.outline,
        rows,
        held,
        training,
        report,
        shares,
        class_of=lambda row: bounds[row.task].class_of(row),
    )
    run = Loop(backbone, objective, trainable, examples, training, method.rate)
    together = {**plain(sharing), "tasks": names}
    about = [
        {**about_method(each, run.learner.parameters, training), "multitask": together}
        for each in methods
    ]
    data = [
        about_data(bound, each, own, dev, training)
        for each, (bound, own, dev) in zip(methods, made, strict=True)
    ]
    config = {
        "tasks": {
            name: {"method": how, "data": each, "task": about_task(bound.task)}
            for name, how, bound, each in zip(names, about, bounds, data, strict=True)
        },
        "backbone": {**about_backbone(backbone), "dtype": dtype_name(backbone)},
    }
    files = {name: folder / f"{name}.safetensors" for name in (*names, OWN[0])}
    for file in files.values():
        check_out(file, trainable)
    target = folder / OWN[1]
    follow(run, config, target, resume=resume, report=report)

    def prompt(injection: Injection, task: int, dev: Mapping[str, Any] | None) -> Prompt:
        bound, _, dev_rows = made[task]
        return build_prompt(
            bound,
            injection,
            bound.fit_on_dev(dev_rows, injection),
            method=about[task],
            data=data[task],
            seed=training.seed,
            dev=dev,
        )

    with torch.no_grad():
        whole: Mixture = trainable()
        shared = trainable.shared() if isinstance(trainable, SharedPrompt) else None
    prompts = {}
    for task, (name, part) in enumerate(zip(names, whole.parts, strict=True)):
        score = {
            bounds[task].metric: run.scores[task],
            "rows": len(made[task][2]),
        }
        found, test = prompt(part, task, score), tests[task]
        if test is not None:
            scores = evaluate(found, test, seed=training.seed, name=name, report=report)
            found = with_scores(found, "test", scores)
        found.save(files[name])
        say_texts(files[name], log_path(target), found, report)
        prompts[name] = found
    common = None if shared is None else prompt(shared, 0, None)
    if common is not None:
        common.save(files[OWN[0]])
    run.state.forget()
    return Outcome(prompts, common)


def _check(
    members: Sequence[Member], training: Training, sharing: Sharing, method: Method
) -> list[Member]:
    """Raise UserError for settings that are wrong, too few tasks, and wrong names."""
    tasks = [make_task(member.task, {}) for member in members]
    members = [replace(each, task=task) for each, task in zip(members, tasks, strict=True)]
    name_of(method), list(map(task_name, tasks))  # what has no name could not be saved
    sharing.check()
    check_rate(method.rate)
    if training.mixup:
        raise UserError("`mixup` would mix rows of different tasks; leave it out")
    for name in ("refit", "label_rows"):
        if getattr(training, name) == "on":
            raise UserError(f"`{name}=on` is for the rows of one task; leave it out")
    if training.contrastive:
        raise UserError("`contrastive` would compare rows of different tasks; leave it out")
    if len(members) < 2:
        raise UserError("several tasks are trained together; give two, or use foreword train")
    for member in members:
        if not re.fullmatch(r"\w[\w.-]*", member.name) or member.name in OWN:
            raise UserError(
                f"task '{member.name}': names a file; give letters, digits, - and _, and not "
                f"{' or '.join(OWN)}"
            )
    names = [member.name for member in members]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"task '{twice}': is the name of two, and of one file; give each its own")
    return list(members)


def _prepare(
    backbone: Backbone, member: Member, training: Training, report: Reporter
) -> tuple[Bound, list[Row], list[Row]]:
    """Return the task bound to the backbone, and its training and dev rows."""
    given = (make_task(member.task, {}), member.train, member.dev)
    task, rows, held = rows_for(backbone, *given, training, Prefixed(member.name, report))
    bound = task.bind(backbone)
    bound.check(rows, answers=True)
    bound.check(held, answers=True)
    return bound, rows, held


def _read_test(bound: Bound, member: Member) -> list[Row] | None:
    if member.test is None:
        return None
    rows = as_rows(member.test, split=TEST, name="test row", fields=bound.pair)
    bound.check(rows, answers=True)
    return rows


def _build(
    made: Sequence[tuple[Bound, list[Row], list[Row]]],
    methods: Sequence[Method],
    sharing: Sharing,
    training: Training,
    owners: Owners,
) -> SeparatePrompts | SharedPrompt:
    """Build a prompt for each task, or a shared one, which starts as the first task's."""
    several = made if sharing.share == "none" else made[:1]
    parts = [
        method.build(bound, rows, training.seed)
        for method, (bound, rows, _) in zip(methods, several, strict=False)
    ]
    with torch.no_grad():
        injections: list[Injection] = [part() for part in parts]
    for injection in injections:
        check_shared_pass(name_of(methods[0]), injection)
    if sharing.share == "none":
        return SeparatePrompts(parts, owners)
    held = 0 if injections[0].embeds is None else len(injections[0].embeds)
    if any(injections[0].leading + bound.virtual != held for bound, _, _ in made):
        raise UserError(
            "templates that place different numbers of virtual tokens cannot share a prompt; "
            "give all as many, or `share` none"
        )
    return SharedPrompt(parts[0], len(made), sharing.rank, training.seed, owners)
