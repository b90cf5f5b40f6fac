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
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING, ClassHead
from foreword.tasks.base import Bound
from foreword.tasks.labels.similar import SCALE
from foreword.tasks.templates.layout import room_for


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
        return _head(weight, weight.new_zeros(len(weight)), scale, task.backbone)
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


def prototypes(task: Bound, rows: Sequence[Row], scale: float | None) -> ClassHead:
    """Return a head that scores rows by their nearness to the classes' means.

    With features z of mean 0 and variance 1 over the rows, and c a class's mean, a linear score is
    ``-|z - c|^2 / width`` up to what is the same for all classes: ``(2 c z - |c|^2) / width``.
    The vectors of a cosine head are the means of the states at length 1.

    Raises UserError where a class has no row, or rows have no class of their own.
    """
    plain = task.without_prompt().with_head()
    room = room_for(plain.backbone, NOTHING)
    examples = [plain.dev_example(row, room).example for row in rows]
    classes = [str(task.class_of(row)) for row in rows]
    names = sorted(set(classes))
    if any(len(example.targets) != 1 for example in examples) or len(names) != task.classes:
        raise UserError(
            f"`head_start=prototypes` needs rows of one class each, and of every class: there are "
            f"{task.classes}, and the training rows have {len(names)}"
        )
    states = torch.cat(states_of(plain.backbone, NOTHING, examples)).float()  # (N, width)
    own = torch.tensor([names.index(name) for name in classes])
    if scale is not None:
        centres = _means(F.normalize(states), own)
        return _head(F.normalize(centres), centres.new_zeros(len(names)), scale, task.backbone)
    mean, spread = states.mean(0), states.std(0, correction=0).clamp(min=1e-6)
    centres = _means((states - mean) / spread, own)  # (C, width)
    weight = 2 * centres / spread / len(mean)
    bias = -centres.square().sum(1) / len(mean) - weight @ mean
    return _head(weight, bias, None, task.backbone)


def _means(features: Tensor, own: Tensor) -> Tensor:
    """Return the mean of each class's rows: (N, width), (N,) -> (C, width)."""
    return torch.stack([features[own == n].mean(0) for n in range(int(own.max()) + 1)])


def _head(
    weight: Tensor, bias: Tensor, scale: float | None, backbone: Backbone | None = None
) -> ClassHead:
    """Return a linear head, or with a scale a cosine one, whose bias is 0."""
    if backbone is not None:
        weight, bias = weight.to(backbone.device), bias.to(backbone.device)
    if scale is None:
        return ClassHead(weight, bias)
    return ClassHead(weight, torch.zeros_like(bias), weight.new_tensor(scale))
