"""Head: a linear classifier on the last hidden state of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from foreword import injection
from foreword.backbone.backbone import Backbone
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.methods.base import Trainable
from foreword.tasks.base import Bound
from foreword.tasks.templates.layout import room_for


@dataclass(frozen=True)
class Head:
    """A linear layer from the last hidden state at the answer's place to scores of the classes.

    Alone it is the linear probe of frozen features; beside another method (``deep+head``, as in
    P-tuning v2, Liu et al. 2022, arXiv:2110.07602) it takes the verbalizer's place.

    ``head_start`` "words" begins as the label words' output embeddings, the mean one of a label of
    several tokens: beside ``soft`` that is WARP (Hambardzumyan et al. 2021, arXiv:2101.00121), a
    trained verbalizer that first gives the manual one's scores. "prototypes" begins as the nearest
    class mean of the training rows in the frozen model (after Cui et al. 2022, arXiv:2203.09770,
    without their learned projection), a few-shot classifier before any step.
    """

    rate: float = setting(1e-3, help="learning rate")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )
    head_start: Literal["random", "words", "prototypes"] = setting(
        "random",
        help="what a head starts from: random, words (of the labels) or prototypes (of classes)",
    )

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Linear:
        """Make the layer; raises UserError where the task has not what the start needs."""
        if not task.classes:
            raise UserError(
                "`method=head`: the task has no classes to score; leave it out, or use "
                "`task=classify`"
            )
        backbone = task.backbone
        if self.head_start == "words":
            return Linear(*start_from_words(task))
        if self.head_start == "prototypes":
            return Linear(*start_from_prototypes(task, rows))
        noise = torch.Generator().manual_seed(seed)
        drawn = torch.randn(task.classes, backbone.state_width, generator=noise) * 0.02
        weight = drawn.to(backbone.device)
        return Linear(weight, weight.new_zeros(len(weight)))


class Linear(Trainable):
    """Weight (C, width) and bias (C,), classes in the order of their names."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self) -> Injection:
        """Return the layer as it is."""
        return Injection(head=injection.ClassHead(self.weight, self.bias))


def start_from_words(task: Bound) -> tuple[Tensor, Tensor]:
    """Return the mean output embedding and bias of each label's tokens: (C, width), (C,).

    Raises UserError where the task has no label words, or the model scores them otherwise.
    """
    paths = task.label_paths()
    if not paths:
        raise UserError("`head_start=words`: the task has no label words; leave it out")
    first = task.backbone.text.around[0] if task.backbone.has_two_stacks else ()
    weights, biases = [], []
    for label in sorted(paths):
        own = [output(task.backbone, path[len(first) :]) for path in paths[label]]
        weights.append(torch.stack([weight.mean(0) for weight, _ in own]).mean(0))
        biases.append(torch.stack([bias.mean() for _, bias in own]).mean())
    return torch.stack(weights), torch.stack(biases)


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


def start_from_prototypes(task: Bound, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Return a layer that scores rows by their distance to the classes' means: (C, width), (C,).

    With features z of mean 0 and variance 1 over the rows, and c a class's mean, the score is
    ``-|z - c|^2 / width`` up to what is the same for all classes: ``(2 c z - |c|^2) / width``.
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
    mean, spread = states.mean(0), states.std(0, correction=0).clamp(min=1e-6)
    features = (states - mean) / spread
    own = torch.tensor([names.index(name) for name in classes])
    centres = torch.stack([features[own == n].mean(0) for n in range(len(names))])  # (C, width)
    weight = 2 * centres / spread / len(mean)
    bias = -centres.square().sum(1) / len(mean) - weight @ mean
    return weight.to(plain.backbone.device), bias.to(plain.backbone.device)
