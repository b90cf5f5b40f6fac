"""How a run makes its passes: within the memory that is given, or that the machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example, common_lead
from foreword.engine.lower_layers import LowerLayers
from foreword.engine.plan import Load, PassPlan, check_room, usual_plan, within
from foreword.injection import Injection, Mixture
from foreword.machine import bytes_of, return_what_is_freed, shown
from foreword.reporter import Reporter
from foreword.tasks.objective import Encoded
from foreword.training.settings import BATCH, EPOCHS, Training


def plan_for(
    backbone: Backbone,
    outline: Injection | Mixture,
    items: Sequence[Encoded],
    rows: int,
    training: Training,
    trained: int | None,
    report: Reporter,
) -> PassPlan:
    """Return how passes are made, within the memory that is given; say so in a line.

    ``items`` are all that passes are made of, ``rows`` how many an epoch has.
    """
    usual = usual_plan(backbone)
    plan = replace(
        usual,
        tokens=training.token_budget or usual.tokens,
        recompute=training.checkpointing,
        cached=training.cache_gb * 2**30,
    )
    if backbone.sharded:
        return plan
    examples = [item.example for item in items]
    lead = len(common_lead(examples))
    leading = max(part.leading for part in Mixture.of(outline, 1).parts)
    count = min(training.batch_size or BATCH, rows)
    targets = sorted(len(example.targets) for example in examples)
    sizes = sorted(example.length - lead for example in examples)
    stored = backbone.width * backbone.dtype.itemsize * sum(e.length for e in examples)
    if trained is None:
        trained = sum(tensor.numel() for _, tensor in outline.tensors())
    load = Load(
        longest=max(1, sizes[-1]),
        before=lead + leading,
        batch=sum(sizes[-count:]),
        targets=sum(targets[-count:]),
        trained=trained,
        cached=min(plan.cached, stored) if depth_under(backbone, outline, examples) else 0.0,
        whole=bool(training.mixup or training.contrastive),
        pieces=len({token for example in examples for token in example.ids}),
    )
    if training.memory is None:
        check_room(backbone, outline, load, plan)
        return plan
    steps = -(-rows // (training.batch_size or BATCH)) * (training.epochs or EPOCHS)
    budget, compiling = bytes_of(training.memory), training.may_compile(steps)
    plan = within(backbone, outline, load, plan, budget, compiling)
    if plan.tight and backbone.device.type == "cpu":
        return_what_is_freed()
    how = ", layers recomputed" if plan.recompute else ""
    assert plan.peak is not None
    report.line(
        f"`memory={training.memory}`: passes of {plan.tokens} tokens{how}; about "
        f"{shown(plan.peak)} at most"
    )
    return plan


def depth_under(
    backbone: Backbone, outline: Injection | Mixture, examples: Sequence[Example]
) -> int:
    """Return the lowest layer that the injection acts on; 0 where nothing below it is stored."""
    if isinstance(outline, Mixture):
        return 0
    return LowerLayers.depth_under(outline, backbone, max(e.length for e in examples))
