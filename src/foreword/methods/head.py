"""Head: a classifier on the last hidden state of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import ClassHead, Injection
from foreword.methods.base import Trainable, as_float32
from foreword.methods.parts.head_starts import (
    fitted,
    has_all,
    random_head,
    trained,
    words,
)
from foreword.methods.parts.probes import MANY
from foreword.tasks.base import Bound
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.score import Score

ENOUGH = 16
"""Rows a class from which on a head beside another method starts as a ridge regression."""


@dataclass(frozen=True)
class Head:
    """A layer from the last hidden state at the answer's place to scores of the classes.

    Alone it is the linear probe of frozen features; beside another method (``deep+head``, as in
    P-tuning v2, Liu et al. 2022, arXiv:2110.07602) it takes the verbalizer's place. ``head_form``
    "cosine" scores a class by the cosine of its vector with the state, over a trained temperature
    that begins at ``head_temperature``.

    Start and form "auto" are those that measured best (docs/presets.md): a linear layer that begins
    as "ridge", or beside another method as "prototypes" where there are fewer than 16 rows a class;
    on an encoder as "logistic" alone, with ten classes or more, or where a row may have several
    labels, and else a cosine one of "prototypes". Where the classes stand for numbers the start is
    "logistic", and of a head of one number "ridge". Where a class has no row it is "words" on an
    encoder and else "random".

    ``head_start`` "words" begins as the label words' output embeddings, the mean one of a label of
    several tokens: beside ``soft`` that is WARP (Hambardzumyan et al. 2021, arXiv:2101.00121), a
    trained verbalizer that first gives the manual one's scores. On an encoder they are the label
    words' encodings. The other starts are classifiers fitted to the training rows' states, under
    the start of what is trained beside the head, so that training begins at their answers (as in
    Kumar et al. 2022, arXiv:2202.10054): "prototypes" is the nearest class mean (after Cui et al.
    2022, arXiv:2203.09770, without their learned projection), "ridge" a ridge regression with the
    penalty that is best for rows left out, and "logistic" a logistic regression. Labels that a row
    may have several of are fitted one by one, and a score that is one number (``regression``) by
    "ridge" alone. "model" is the trained head of an encoder's folder.
    """

    rate: float = setting(1e-3, help="learning rate")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )
    head_start: Literal["auto", "random", "words", "model", "prototypes", "ridge", "logistic"] = (
        setting(
            "auto",
            help="what a head starts from: random, words (of the labels), model (its trained "
            "head), or fitted to the rows' states: prototypes (means of classes), ridge or "
            "logistic regression; auto is the best for the model",
        )
    )
    head_form: Literal["auto", "linear", "cosine"] = setting(
        "auto",
        help="a head's scores: a linear layer, or the cosine with a vector of each class; auto "
        "goes with the start",
    )
    head_temperature: float = setting(
        0.05, help="what a cosine head's cosines are divided by at first"
    )

    starts_beside: ClassVar[Literal[True]] = True

    def settled(self, task: Bound, rows: Sequence[Row], *, alone: bool = True) -> Head:
        """Return the method with the start and the form that measured best on the model."""
        if not task.classes:
            return self
        start, form, encoder = self.head_start, self.head_form, task.backbone.is_encoder
        if start == "auto":
            if task.classes == 1:
                start = "ridge"
            elif not has_all(task, rows):
                start = "words" if encoder else "random"
            elif form == "cosine":
                start = "prototypes"
            elif isinstance(task.task, Score):
                start = "logistic"
            elif encoder:
                several = isinstance(task.task, Multilabel)
                well = alone or form == "linear" or several or task.classes >= MANY
                start = "logistic" if well else "prototypes"
            else:
                start = "ridge" if alone or len(rows) >= ENOUGH * task.classes else "prototypes"
        if form == "auto":
            cosine = encoder and not alone and start in ("prototypes", "words")
            form = "cosine" if cosine else "linear"
        return replace(self, head_start=start, head_form=form)

    def build(
        self, task: Bound, rows: Sequence[Row], seed: int, beside: Trainable | None = None
    ) -> HeadTensors:
        """Start the layer, on what is trained ``beside`` it.

        Raises UserError where the task has not what the start needs.
        """
        if not task.classes:
            raise UserError(
                "`method=head`: the task has no classes to score; leave it out, or use "
                "`task=classify`"
            )
        made = self.settled(task, rows, alone=beside is None)
        if task.classes == 1 and made.head_start not in ("random", "ridge", "model"):
            raise UserError(
                f"`head_start={made.head_start}`: a head of one number has no classes; use "
                "`head_start=ridge`"
            )
        if not self.head_temperature > 0:
            raise UserError(f"`head_temperature={self.head_temperature:g}`: give one above 0")
        scale = 1 / made.head_temperature if made.head_form == "cosine" else None
        if made.head_start == "words":
            return HeadTensors(words(task, scale))
        if made.head_start == "model":
            return HeadTensors(trained(task, scale))
        if made.head_start == "random":
            return HeadTensors(random_head(task, scale, seed))
        return HeadTensors(fitted(made.head_start, task, [*rows, *task.names], scale, beside))


class HeadTensors(Trainable):
    """Weight (C, width) and bias (C,), classes in the order of their names.

    Of a cosine head the logarithm of the scale is trained, so that it stays above zero.
    """

    def __init__(self, head: ClassHead) -> None:
        super().__init__()
        self.weight = nn.Parameter(as_float32(head.weight))
        self.bias = nn.Parameter(as_float32(head.bias))
        scale = head.scale
        self.log_scale = None if scale is None else nn.Parameter(as_float32(scale).log())

    def forward(self) -> Injection:
        """Return the layer as it is."""
        scale = None if self.log_scale is None else torch.exp(self.log_scale)
        return Injection(head=ClassHead(self.weight, self.bias, scale))
