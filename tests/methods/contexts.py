"""Contexts of a few rows, and what can be asked of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

import contract
import families
from foreword.data.row import Row
from foreword.injection import KV, Injection
from foreword.methods.context import Context, ShownDemonstrations
from foreword.tasks.base import Bound
from oracles import FAMILIES, get

CARRIED = [n for n in FAMILIES if n not in [f.name for f in families.UNREACHED]]
SHOWN = Context(shots=3, token_dropout=0.0)
DROPPING = Context(shots=2, token_dropout=0.3, choice="first")
ROWS = [
    Row({"text": f"film {n} it", "label": label, "completion": f"it was {n}"}, f"F:{n}")
    for n, label in enumerate(["good"] * 6 + ["bad"] * 3 + ["fine"])
]


def bound(name: str, template: str | None = None) -> Bound:
    task = contract.task_on(get(name))
    return replace(task, template=template or task.template).bind(get(name))


@cache
def built(method: Context, name: str = "llama") -> ShownDemonstrations:
    return method.build(bound(name), ROWS, 0)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def length(injection: Injection) -> int:
    (size,) = {kv.keys.shape[1] for kv in injection.kv.values()}
    return size


def owned(made: ShownDemonstrations, *numbers: int) -> Tensor:
    return torch.isin(made.owners, torch.tensor(numbers, dtype=torch.long))


def without(made: ShownDemonstrations, own: Tensor) -> Injection:
    """The prefix rebuilt from the positions that are not among ``own``."""
    whole = made()
    kv = {
        s: KV(kv.keys[:, ~own[-kv.keys.shape[1] :]], kv.values[:, ~own[-kv.keys.shape[1] :]])
        for s, kv in whole.kv.items()
    }
    return Injection(kv=kv, positions=whole.positions)
