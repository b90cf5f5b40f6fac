"""Examples: the rows of a run as token ids with targets, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import POOLED, behind, common_lead
from foreword.data.row import Row
from foreword.data.sample import stratified
from foreword.engine.lower_layers import LowerLayers
from foreword.engine.plan import PassPlan
from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.reporter import Reporter
from foreword.tasks.objective import Encoded, Objective
from foreword.tasks.templates.layout import room_for
from foreword.training.memory import depth_under, plan_for
from foreword.training.settings import Training


@dataclass(frozen=True)
class Examples:
    """Training and dev rows with the examples made of them.

    All training examples begin with the tokens ``lead``, and the longest has ``longest`` tokens.
    ``sample`` has the numbers of the dev rows that are scored between steps. ``lower`` stores the
    states below the prompt's lowest layer, None where there is nothing below. ``plan`` says how
    passes are made. ``counts`` says how many rows of each task an epoch has. The last ``names``
    training rows are the names of labels.
    """

    train_rows: Sequence[Row]
    dev_rows: Sequence[Row]
    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    sample: Sequence[int]
    lead: tuple[int, ...]
    longest: int
    lower: LowerLayers | None
    plan: PassPlan
    counts: Mapping[str, int]
    names: int = 0

    def of_task(self, task: int) -> list[Row]:
        """Return the training rows of one of several tasks, without those that name labels."""
        given = self.train_rows[: len(self.train_rows) - self.names]
        return [row for row in given if row.task == task]


def encode(
    backbone: Backbone,
    objective: Objective,
    outline: Injection | Mixture,
    train: Sequence[Row],
    dev: Sequence[Row],
    training: Training,
    report: Reporter,
    counts: Mapping[str, int] | None = None,
    class_of: Callable[[Row], str | None] = lambda row: None,
    trained: int | None = None,
) -> Examples:
    """Turn rows into examples for an injection like ``outline``; report how many were cut.

    ``class_of`` gives the class of a dev row, by which those that are scored between steps are
    drawn. ``trained`` is how many numbers are trained, None for those of the outline.

    Raises UserError for rows that ``mixup`` cannot mix, or ``contrastive`` compare, and for a run
    that has not the memory.
    """
    room = room_for(backbone, outline)
    with report.bar("laying out", len(train) + len(dev)) as progress:

        def laid_out(lay_out: Callable[[Row, int], Encoded], rows: Sequence[Row]) -> list[Encoded]:
            made = []
            for row in rows:
                made.append(lay_out(row, room))
                progress(1)
            return _behind(made, outline)

        train_items = laid_out(objective.train_example, train)
        dev_items = laid_out(objective.dev_example, dev)
    for name, items in (("training", train_items), ("dev", dev_items)):
        cut = sum(item.truncated for item in items)
        if cut:
            report.line(f"{cut} of {len(items)} {name} rows were too long and were cut")
        windowed = sum(item.windows > 1 for item in items)
        if windowed:
            report.line(
                f"{windowed} of {len(items)} {name} rows were parted in windows; the first "
                "with an answer is learned"
            )
    if training.mixup and any(len(item.example.targets) != 1 for item in train_items):
        raise UserError(
            "`mixup` mixes rows that are scored at one token each; give labels of one token, "
            "or use a head"
        )
    if training.contrastive and not _comparable(train, train_items, class_of):
        raise UserError(
            "`contrastive` compares rows that have one label and are scored at one token each; use "
            "a head (`method=prefix+head`) and a task of one label a row"
        )
    if training.word_dropout and not all(map(_whole, train_items)):
        raise UserError(
            "`word_dropout` leaves out tokens of rows that are read as a whole; use an encoder "
            "with a head, or leave it out"
        )
    sample = _sample(dev, class_of, training, report)
    scored = [dev_items[n] for n in sample]
    count = sum((counts or {"": len(train)}).values())
    plan = plan_for(backbone, outline, [*train_items, *scored], count, training, trained, report)
    lower = _lower_layers(backbone, outline, train_items, dev_items, scored, plan, report)
    return Examples(
        train_rows=train,
        dev_rows=dev,
        train=train_items,
        dev=dev_items,
        sample=sample,
        lead=tuple(common_lead(item.example for item in train_items)),
        longest=max(item.example.length for item in train_items),
        lower=lower,
        plan=plan,
        counts=counts or {"": len(train)},
    )


def _comparable(
    rows: Sequence[Row], items: Sequence[Encoded], class_of: Callable[[Row], str | None]
) -> bool:
    """Whether every row has one label and one target."""
    single = all(len(item.golds) == len(item.example.targets) == 1 for item in items)
    return single and all(class_of(row) is not None for row in rows)


def _whole(item: Encoded) -> bool:
    """Whether one pooled state of the row is all that is read."""
    example = item.example
    return example.targets == ((0, POOLED),) and example.branches == ((),)


def _behind(items: Sequence[Encoded], outline: Injection | Mixture) -> list[Encoded]:
    """Return items as rows that follow the injection, of several that of their task."""
    if isinstance(outline, Mixture):
        outline = outline.of_rows([item.task for item in items])
    examples = behind([item.example for item in items], outline)
    return [replace(i, example=e) for i, e in zip(items, examples, strict=True)]


def _sample(
    dev: Sequence[Row],
    class_of: Callable[[Row], str | None],
    training: Training,
    report: Reporter,
) -> list[int]:
    """Return the dev rows, by number, that are scored between steps; say so if they are not all."""
    chosen = []
    for task in sorted({row.task for row in dev}):
        own = [number for number, row in enumerate(dev) if row.task == task]
        classes = [class_of(dev[number]) for number in own]
        chosen += [own[n] for n in stratified(classes, training.dev_sample, training.seed)]
    if len(chosen) < len(dev):
        report.line(
            f"{len(chosen)} of {len(dev)} dev rows are scored between steps (`dev_sample`), all of "
            "them at the end"
        )
    return chosen


def _lower_layers(
    backbone: Backbone,
    outline: Injection | Mixture,
    train: Sequence[Encoded],
    dev: Sequence[Encoded],
    scored: Sequence[Encoded],
    plan: PassPlan,
    report: Reporter,
) -> LowerLayers | None:
    """Return a store of the states below the prompt's lowest layer, where something is below.

    It holds those of the training rows, and of the dev rows that are ``scored`` between steps.
    """
    examples = [item.example for item in (*train, *dev)]
    layer = depth_under(backbone, outline, examples)
    if isinstance(outline, Mixture) or layer == 0:
        return None
    lead = common_lead(examples) if backbone.can_pack else ()
    rows = [item.example for item in (*train, *scored)]
    return LowerLayers(
        backbone, rows, layer, outline.positions, lead, plan.cached, report, plan.tokens
    )
