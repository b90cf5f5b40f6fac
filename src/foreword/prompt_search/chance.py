"""Chance: what each dev row adds to a score, and its loss, to compare two trials row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

import torch

from foreword.data.row import Row
from foreword.engine.passes import infer
from foreword.explanation.judge import Judge
from foreword.prompt.prompt import Prompt

CHANCE = 1.28
"""Standard errors of a difference up to which it may be chance: one in ten are larger."""

MOST = 2000
"""Dev rows up to which what each adds is kept."""


def row_values(prompt: Prompt, rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return what each row adds to the dev score, whose mean they have, and each row's loss.

    There are no values where the score is no mean over rows, as an F1 is, and neither of very many
    rows.
    """
    if len(rows) > MOST:
        return [], []
    judge = Judge.of(prompt.bound, rows, prompt.injection)
    sums: list[tuple[float, ...]] = [()] * len(rows)
    losses = [0.0] * len(rows)
    found = infer(judge.backbone, judge.injection, judge.examples, tokens=judge.bound.tokens)
    for group, logits in found:
        items = [judge.items[row] for row in group]
        parts = torch.split(logits, [len(item.example.targets) for item in items])
        lost = judge.bound.losses(logits, items).tolist()
        for row, item, part, loss in zip(group, items, parts, lost, strict=True):
            sums[row] = judge.bound.dev_counts(part, [item])
            losses[row] = round(loss, 4)
    if len(sums[0]) != 2:
        return [], losses
    weight = sum(weight for _, weight in sums) / len(sums)
    return [round(value / weight, 4) for value, _ in sums], losses


def is_higher(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first rows' mean is higher than that of the same other rows, beyond chance."""
    gains = [a - b for a, b in zip(first, second, strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    return mean(gains) > CHANCE * error
