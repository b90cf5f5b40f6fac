"""Foreword's side: the step of its own training loop, on chosen batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from train_agreement import Reading
from train_cases import Case

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.injection import Injection
from foreword.reporter import SILENT
from foreword.tasks.base import Bound
from foreword.tasks.objective import Encoded
from foreword.training.examples import encode
from foreword.training.loop import Loop
from foreword.training.settings import Switch, Training

RATE = 1e-9
"""AdamW's learning rate on both sides: all its work is done, and the prompts stay equal."""

CLIP = 1.0
LONG_RUN = 1000
"""Epochs of the run that is timed; where compiling is left to Foreword, it pays in a long one."""


def begin(
    backbone: Backbone,
    case: Case,
    rows: Sequence[Row],
    seed: int,
    compiled: Switch,
    *,
    memory: str | None = None,
) -> Loop:
    """Make the loop that training itself runs. All that is known of its making is here.

    Raises UserError where ``compiled`` is "on" and layers cannot be compiled.
    """
    bound: Bound = case.task.bind(backbone)
    bound.check(rows, answers=True)
    training = Training(
        epochs=LONG_RUN,
        batch_size=case.batch,
        rate=RATE,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        clip=CLIP,
        seed=seed,
        compile=compiled,
        memory=memory,
    )
    trainable = case.make_method().build(bound, rows, seed)
    examples = encode(backbone, bound, trainable.outline, rows, [], training, SILENT)
    loop = Loop(backbone, bound, trainable, examples, training, RATE)
    backbone.compiling(loop.compiles())  # as Loop.go does before its first step
    return loop


class ForewordSide:
    """Foreword's loop, put back to the step of a batch each time it is to take it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.loss = math.nan

    def batch(self, number: int) -> list[Encoded]:
        """Return the rows of a batch as examples."""
        return [self.loop.examples.train[i] for i in self.loop.order.batch(number)]

    def step(self, number: int) -> None:
        """Take the loop's own step."""
        self.loop.state.progress.step = number
        self.loss = self.loop.step()["loss"]

    def prompt(self) -> Tensor:
        """Return the prompt in PEFT's layout."""
        return flat(self.loop.trainable()).detach()

    def read(self, number: int) -> Reading:
        """Take a step, without clipping, and return what it came to."""
        learner = self.loop.learner
        training = learner.training
        learner.training = replace(training, clip=math.inf)
        self.step(number)
        learner.training = training
        # The injection holds the parameters themselves, and these their gradients.
        return Reading(self.loss, flat(self.loop.trainable().map(_gradient)))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def flat(injection: Injection) -> Tensor:
    """Lay an injection out as PEFT does.

    A soft prompt is (n, width); a prefix is (n, 2 L H D) in the order K_0, V_0, K_1, V_1 ...,
    keys after the rotary embedding.
    """
    if injection.embeds is not None:
        return injection.embeds
    parts = [part for kv in injection.kv.values() for part in (kv.keys, kv.values)]  # (H, n, D)
    return torch.stack(parts).permute(2, 0, 1, 3).reshape(parts[0].shape[1], -1)
