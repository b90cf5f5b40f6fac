"""Attention on the prompt, by layer and head, as the mean over rows' tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.backbone.run.attention_shares import attention_shares
from foreword.engine.groups import buckets, token_budget
from foreword.errors import UserError
from foreword.explanation.explanation import LayerAttention
from foreword.explanation.judge import Judge
from foreword.explanation.pieces import NO_TOKENS, name_of_site, virtual_of
from foreword.reporter import Reporter


def attention_on_prompt(judge: Judge, report: Reporter) -> tuple[LayerAttention, ...]:
    """Measure the shares of attention that rows pay to a prompt; raises UserError if none can."""
    backbone, injection = judge.backbone, judge.injection
    if not injection.kv and not virtual_of(injection):
        raise UserError(NO_TOKENS)
    sites = backbone.need_sites()
    if any(site.recurrent for site in sites):
        raise UserError("a recurrent model has no attention")
    view, examples = backbone.with_changes(injection), judge.examples
    sums: dict[str, tuple[Tensor, int]] = {}
    budget = token_budget(backbone) if backbone.can_pad else 1
    with report.bar("attention", len(examples)) as progress:
        for group in buckets([example.length for example in examples], budget):
            for name, (total, count) in attention_shares(
                view, [examples[i] for i in group], injection
            ).items():
                before, counted = sums.get(name, (torch.zeros_like(total), 0))
                sums[name] = before + total, counted + count
            progress(len(group))
    return tuple(
        LayerAttention(name_of_site(backbone, name), tuple((total / count).tolist()))
        for name, (total, count) in sums.items()
    )
