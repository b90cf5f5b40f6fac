"""Prompts to compose: trained for a few large steps on the contract's rows, or drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import contract
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.backbone.example import Example
from foreword.config.values import plain
from foreword.engine.passes import infer
from foreword.injection import Injection
from foreword.methods.base import Method
from foreword.methods.registry import name_of
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.tasks.generate import Generate
from foreword.tasks.templates.layout import room_for
from oracles import get

GENERATE = Generate(
    template="{text} :", completion_field="completion", decoding=Decoding(max_new_tokens=5)
)


def prompt(
    method: Method,
    seed: int = 0,
    name: str = "llama",
    task: Task | None = None,
    base: Backbone | None = None,
    **changes: Any,
) -> Prompt:
    """A prompt of a method on ``base`` or an oracle's backbone; ``changes`` are of the prompt."""
    base = base or get(name)
    made = Prompt(
        injection=contract.trained(method, base, seed=seed)(),
        task=task or contract.task_on(base),
        backbone={
            "name": base.name,
            "architecture": base.architecture,
            "fingerprint": base.fingerprint,
        },
        method={"name": name_of(method), **plain(method)},
        data={"train": {"rows": 4}, "demonstrations": ["it : good\n\n"]},
        on=base,
    )
    return replace(made, **changes)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def first_example(base: Backbone, injection: Injection) -> Example:
    task = contract.task_on(base).bind(base)
    return task.dev_example(contract.ROWS[0], room_for(base, injection)).example


def logits(base: Backbone, injection: Injection) -> Tensor:
    """The scores that foreword gives the contract's first row."""
    ((_, found),) = infer(base, injection, [first_example(base, injection)])
    return found
