"""Preparation of a run: rows are read and checked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from foreword.backbone.backbone import Backbone
from foreword.data.folder import DEV
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.data.sample import hold_out
from foreword.errors import UserError
from foreword.grammar import is_are
from foreword.injection import Mixture
from foreword.methods.auto import Auto, are_scarce
from foreword.methods.base import Method, Trainable, settle
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.registry import name_of
from foreword.reporter import Reporter
from foreword.tasks.base import Bound, Task
from foreword.tasks.classify import Classify
from foreword.tasks.labels.examples import LabelExamples
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.objective import Objective
from foreword.tasks.registry import name_of as task_name
from foreword.tasks.tag import Tag
from foreword.tasks.texts.examples import TextExamples
from foreword.training.examples import encode
from foreword.training.loop import Loop
from foreword.training.settings import Training, check_rate
from foreword.training.several_tasks import MixedObjective, Replay
from foreword.training.world import ALONE, World

DEV_SHARE = 0.1
"""The share of the training rows that is held back where no dev rows are given."""


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
    training = training.check()
    check_rate(method.rate)
    task, train_rows, dev_rows = rows_for(backbone, task, train, dev, training, report)
    return build_run(
        backbone,
        task,
        method,
        train_rows,
        dev_rows,
        training,
        report,
        world,
        held=dev is None,
        objective=objective,
        replay=replay,
    )


def build_run(
    backbone: Backbone,
    task: Task,
    method: Method,
    train: Sequence[Row],
    dev: Sequence[Row],
    training: Training,
    report: Reporter,
    world: World = ALONE,
    *,
    held: bool = False,
    objective: Callable[[Bound], Objective] | None = None,
    replay: Replay | None = None,
) -> tuple[Bound, Method, Loop]:
    """Return what :func:`prepare` does, for a task that is complete and the rows of each part.

    ``held`` says that the dev rows were held back of the training rows. Without any the run keeps
    its last step.
    """
    bound = task.bind(backbone)
    if not bound.fields:
        raise UserError(
            f"template {bound.template.source!r} reads no field of a row; write one in braces, "
            "such as {text}"
        )
    bound.check(train, answers=True)
    bound.check(dev, answers=True)
    if isinstance(bound, LabelExamples):
        bound.embed_demonstrations(report)
    if isinstance(method, Auto):
        method, why = method.choose(bound, train)
        if why is not None:
            report.line(why)
    method = settle(method, bound, train)
    plain = objective is None and replay is None
    names = label_rows(bound)
    if training.label_rows == "on" and not names:
        raise UserError(
            "`label_rows=on`: labels are rows where a row is one text with one label; leave it out"
        )
    few = len(train) if plain and is_scarce(bound, method, train) else 0
    slow = len(train) if plain and is_slow(bound) else 0
    training = _possible(training, bound, names)
    training = training.settled(few, bound.classes if few else 0, held, slow)
    names = names if training.label_rows == "on" else []
    trainable = method.build(bound.changed(names=names), train, training.seed)
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
        counts = replay.counts(len(train) + len(names))
        old = replay.task.bind(backbone)
        old.check(replay.rows, answers=True)
        learned = MixedObjective([learned, old.with_head() if trainable.has_head else old])
        train = [*train, *(replace(row, task=1) for row in replay.rows)]
    examples = encode(
        backbone,
        learned,
        trainable.outline,
        [*train, *names],
        dev,
        training,
        report,
        counts,
        class_of=bound.class_of,
        trained=sum(p.numel() for p in trainable.parameters() if p.requires_grad),
    )
    examples = replace(examples, names=len(names))
    return bound, method, Loop(backbone, learned, trainable, examples, training, method.rate, world)


def is_scarce(bound: Bound, method: Method, rows: Sequence[Row]) -> bool:
    """Whether rows are few on an encoder, and a head is trained beside another method.

    These are the runs whose settings :meth:`Training.settled` has measured.
    """
    headed = isinstance(method, Several) and any(isinstance(each, Head) for each in method.methods)
    whole = not isinstance(bound.task, Tag)  # the settings are about labels of whole rows
    return headed and whole and are_scarce(bound, rows)


def is_slow(bound: Bound) -> bool:
    """Whether few rows of a task were measured to need more than a few steps (docs/LOG.md)."""
    tags = isinstance(bound.task, Tag) and bound.backbone.is_encoder
    return tags or isinstance(bound, TextExamples)


def _possible(training: Training, bound: Bound, names: Sequence[Row]) -> Training:
    """Return the settings without those, of what is open, that the task's rows cannot have.

    These are rows of labels' ``names``, where there are none, and rows with one label to compare.
    """
    if training.label_rows == "auto" and not names:
        training = replace(training, label_rows="off")
    if training.contrastive is None and isinstance(bound.task, Multilabel):
        training = replace(training, contrastive=0.0)
    return training


def label_rows(bound: Bound) -> list[Row]:
    """Return a row for each word of each label; none where a row is not one text with one label."""
    one_text = isinstance(bound.task, Classify) and len(bound.fields) == 1
    if not (one_text and isinstance(bound, LabelExamples)):
        return []
    return [
        Row(dict(zip(bound.pair, (word.strip(), label), strict=True)), f"the label {label}")
        for label, words in sorted(bound.words.items())
        for word in words
    ]


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
    rows, held = hold_out(rows, DEV_SHARE, training.seed, by=task.class_field)
    report.line(
        f"no dev rows given: {len(held)} of the training rows {is_are(len(held))} held back"
    )
    return task.fill_from_rows(backbone, rows, training.seed, report), rows, held
