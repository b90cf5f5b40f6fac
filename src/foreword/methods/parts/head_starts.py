"""Starts of a head: what scores the classes before the first step of training.

With a ``scale`` the head that is returned is a cosine one, else a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING, ClassHead, Injection, Mixture
from foreword.methods.base import Trainable
from foreword.methods.parts.probes import (
    KnownStates,
    cosine_prototypes,
    logistic,
    prototypes,
    ridge,
)
from foreword.tasks.base import Bound
from foreword.tasks.labels.similar import SCALE
from foreword.tasks.score import Score
from foreword.tasks.states import states_of_rows
from foreword.tasks.templates.demonstrations import choose_demonstrations
from foreword.tasks.templates.layout import room_for

FITTED = {"prototypes": prototypes, "ridge": ridge, "logistic": logistic}
"""Starts that are fitted to the training rows, by their names."""

MOST_ROWS = 2048
"""Rows whose states a start is fitted to."""


def random_head(task: Bound, scale: float | None, seed: int) -> ClassHead:
    """Return a head of small random numbers."""
    noise = torch.Generator().manual_seed(seed)
    drawn = torch.randn(task.classes, task.backbone.state_width, generator=noise) * 0.02
    weight = drawn.to(task.backbone.device)
    return _head(weight, weight.new_zeros(len(weight)), scale)


def words(task: Bound, scale: float | None) -> ClassHead:
    """Return the mean output embedding and bias of each label's tokens.

    On an encoder they are the encodings of the label words, which score as these do without a head.
    A cosine head has the embeddings as its vectors. Raises UserError where the task has no label
    words, or the model scores them otherwise.
    """
    encodings = task.label_encodings()
    if encodings is not None:
        weight = (SCALE if scale is None else 1.0) * F.normalize(encodings, dim=1)
        weight = weight.to(task.backbone.device)
        return _head(weight, weight.new_zeros(len(weight)), scale)
    paths = task.label_paths()
    if not paths:
        raise UserError("`head_start=words`: the task has no label words; leave it out")
    first = task.backbone.text.around[0] if task.backbone.has_two_stacks else ()
    weights, biases = [], []
    for label in sorted(paths):
        own = [output(task.backbone, path[len(first) :]) for path in paths[label]]
        weights.append(torch.stack([weight.mean(0) for weight, _ in own]).mean(0))
        biases.append(torch.stack([bias.mean() for _, bias in own]).mean())
    return _head(torch.stack(weights), torch.stack(biases), scale)


def trained(task: Bound, scale: float | None) -> ClassHead:
    """Return the trained head of an encoder's folder, for the task's labels.

    Raises UserError where there is none, and where it has other labels.
    """
    own = task.own_head
    if own is None:
        raise UserError(
            f"`head_start=model`: {task.backbone.name} has no trained head; use "
            "`head_start=logistic`"
        )
    if scale is not None:
        raise UserError("`head_start=model`: is a linear layer; use `head_form=linear`")
    return own


@torch.no_grad()
def output(backbone: Backbone, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the weights and biases by which last states give tokens' scores: (T, width), (T,).

    They are read off the scores of unit vectors, whatever the model calls them. Raises UserError
    where the scores are no linear function of the states.
    """
    width = backbone.state_width
    unit = torch.eye(width, device=backbone.device, dtype=backbone.dtype)
    bias = backbone.logits(torch.zeros_like(unit[:1]), tokens).float()[0]
    weight = (backbone.logits(unit, tokens).float() - bias).T
    tried = torch.randn(4, width, generator=torch.Generator().manual_seed(0)).to(unit) * 8
    want, found = tried.float() @ weight.T + bias, backbone.logits(tried, tokens).float()
    if not torch.allclose(want, found, rtol=0.05, atol=0.05 * float(found.abs().max())):
        raise UserError(
            f"`head_start=words`: {backbone.name} transforms or caps what its output embeddings "
            "meet, so that no linear head can begin as they are; use `head_start=prototypes`"
        )
    return weight.contiguous(), bias


def fitted(
    start: str, task: Bound, rows: Sequence[Row], scale: float | None, beside: Trainable | None
) -> ClassHead:
    """Return a head that is fitted to the states of the rows: one of ``FITTED``.

    The states are those of the first step: under what is trained ``beside`` it, if anything is.
    Raises UserError where a class has no row, and for a form or a task that the start has not.
    """
    if scale is not None and start != "prototypes":
        raise UserError(f"`head_start={start}`: is a linear layer; use `head_form=linear`")
    if start == "ridge" and isinstance(task.task, Score) and task.classes > 1:
        raise UserError(
            "`head_start=ridge`: a score is the mean of its anchors under their probabilities, "
            "which is no linear layer; use `head_start=logistic`, or `regression=true`"
        )
    known = known_states(start, task, rows, beside)
    device = task.backbone.device
    if scale is not None:
        centres = cosine_prototypes(known).float().to(device)
        return _head(centres, centres.new_zeros(len(centres)), scale)
    weight, bias = FITTED[start](known)
    return ClassHead(weight.float().to(device), bias.float().to(device))


def known_states(
    start: str, task: Bound, rows: Sequence[Row], beside: Trainable | None
) -> KnownStates:
    """Return the rows' states at the place of the answer, and their classes.

    Of many rows ``MOST_ROWS`` are taken, class by class in turn.
    """
    numbers = _numbers(task, rows)
    headed = (task.without_prompt() if beside is None else task).with_head()
    with torch.no_grad():
        injection: Injection | Mixture = NOTHING
        if beside is not None:
            injection = beside.training_on(numbers, torch.Generator().manual_seed(0))
        items, states = states_of_rows(headed, [rows[n] for n in numbers], injection)
    shares, none = headed.class_shares(items)
    if task.classes == 1:
        return KnownStates(torch.cat(states).double(), shares.double(), number=True)
    if lacking := _lacking(headed, shares, none):
        raise UserError(
            f"`head_start={start}` needs rows with every label, and without it where rows have "
            f"several: there are none for {', '.join(lacking)}; use `head_start=random`"
        )
    return KnownStates(torch.cat(states).double(), shares.double(), none)


def has_all(task: Bound, rows: Sequence[Row]) -> bool:
    """Return whether the rows that a start is fitted to have every class, and are without it."""
    headed = task.with_head()
    room = room_for(task.backbone, NOTHING)
    items = [headed.dev_example(rows[n], room) for n in _numbers(task, rows)]
    return not _lacking(headed, *headed.class_shares(items))


def _numbers(task: Bound, rows: Sequence[Row]) -> list[int]:
    """Return the numbers of the rows that a start is fitted to, in order."""
    if len(rows) <= MOST_ROWS:
        return list(range(len(rows)))
    place = {id(row): number for number, row in enumerate(rows)}
    chosen = choose_demonstrations(task, rows, MOST_ROWS, 0)
    return sorted(place[id(row)] for row in chosen)


def _lacking(task: Bound, shares: Tensor, none: int | None) -> list[str]:
    """Return the classes that no row has, or that all have where a row may have several."""
    held = shares.sum(0)
    return [
        name
        for place, name in enumerate(task.class_order)
        if place != none and (held[place] == 0 or (none is not None and held[place] == len(shares)))
    ]


def _head(weight: Tensor, bias: Tensor, scale: float | None) -> ClassHead:
    """Return a linear head, or with a scale a cosine one, whose bias is 0."""
    if scale is None:
        return ClassHead(weight, bias)
    return ClassHead(weight, torch.zeros_like(bias), weight.new_tensor(scale))
