"""Probes: linear classifiers of states that do not change, by closed forms or scikit-learn.

Features are the states with mean 0 and mean square 1 / width over the rows, so that a row has about
length 1 whatever the model. Shares say how much of each class is right in a row, (N, C), adding up
to 1. Where rows have any number of labels (``none`` is the place of what stands for no label), each
label is fitted alone against the rows without it, and ``none`` scores 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MANY = 10
"""Labels from which on a logistic regression has a weaker penalty."""

PENALTIES = np.logspace(-3, 2, 21)
SCALES = np.logspace(-0.5, 2.5, 25)


@dataclass(frozen=True, eq=False)
class KnownStates:
    """States of rows whose classes are known, in float64; or the ``number`` of each, (N, 1)."""

    states: Tensor  # (N, width)
    shares: Tensor  # (N, C)
    none: int | None = None
    number: bool = False

    @property
    def labels(self) -> list[int]:
        """The classes that are fitted: all but ``none``."""
        return [n for n in range(self.shares.shape[1]) if n != self.none]

    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, and the mean and the divisor that make them: (N, width), 2 (width,)."""
        mean = self.states.mean(0)
        spread = self.states.std(0, correction=0).clamp(min=1e-6) * self.states.shape[1] ** 0.5
        return (self.states - mean) / spread, mean, spread

    def on_states(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer on features as one on states, with ``none``: (C, width), (C,)."""
        _, mean, spread = self.features()
        whole = weight.new_zeros(self.shares.shape[1], weight.shape[1])
        whole[self.labels] = weight / spread
        offset = bias.new_zeros(len(whole))
        offset[self.labels] = bias
        return whole, offset - whole @ mean


def prototypes(known: KnownStates) -> tuple[Tensor, Tensor]:
    """Return the layer whose scores are ``-|z - c|^2``, z the features, c the classes' means.

    What is the same for all classes is left out: ``2 c z - |c|^2``. The score of a label that
    stands alone is that of the rows with it less that of the rows without.
    """
    features, _, _ = known.features()
    with_it = known.shares[:, known.labels]
    centres = _means(features, with_it)
    weight, bias = 2 * centres, -centres.square().sum(1)
    if known.none is not None:
        others = _means(features, 1 - with_it)
        weight, bias = weight - 2 * others, bias + others.square().sum(1)
    return known.on_states(weight, bias)


def cosine_prototypes(known: KnownStates) -> Tensor:
    """Return the means of each class's states at length 1, again at length 1: (C, width).

    ``none`` has the mean of all rows.
    """
    shares = known.shares.clone()
    if known.none is not None:
        shares[:, known.none] = 1
    return F.normalize(_means(F.normalize(known.states), shares))


def ridge(known: KnownStates) -> tuple[Tensor, Tensor]:
    """Return a ridge regression on the classes' shares, as scores, or on the number.

    The penalty, and what the outputs are multiplied by to be log-odds, have the least cross entropy
    of the rows when each is left out. The outputs without a row's own influence have a closed form:
    ``y - (y - f) / (1 - h)``, h the row's own entry in the hat matrix (Allen 1974, PRESS). Of a
    number they have the least squared error.
    """
    features, _, _ = known.features()
    held = known.shares[:, known.labels]
    goal = held if known.none is None else 2 * held - 1
    middle = goal.mean(0)
    left, size, right = torch.linalg.svd(features, full_matrices=False)
    kept = size > 1e-9 * size[0]
    left, size, right = left[:, kept], size[kept], right[kept]
    along = left.T @ (goal - middle)
    best = (np.inf, 0.0, 0.0)
    for penalty in PENALTIES:
        shrunk = size.square() / (size.square() + penalty)
        rest = goal - middle - left @ (shrunk[:, None] * along)
        own = (left.square() @ shrunk + 1 / len(goal)).clamp(max=1 - 1e-9)
        outputs = goal - rest / (1 - own)[:, None]
        for scale in (1.0,) if known.number else SCALES:
            loss = _loss(scale * outputs, held, known)
            best = min(best, (loss, float(penalty), float(scale)))
    _, penalty, scale = best
    weight = scale * (right.T @ ((size / (size.square() + penalty))[:, None] * along)).T
    return known.on_states(weight, scale * middle)


def strength(labels: int) -> float:
    """Return C, one over the penalty, of a logistic regression (docs/LOG.md: what was measured)."""
    return 3.0 if labels < MANY else 10.0


def logistic(known: KnownStates) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's LogisticRegression on the features, with the C of ``strength``.

    A row whose share is spread over classes counts for each of them with its share.
    """
    features, _, _ = known.features()
    held = known.shares[:, known.labels]
    if known.none is None:
        rows, classes = held.nonzero(as_tuple=True)
        weight, bias = _fit(features[rows], classes, held[rows, classes])
        if len(weight) == 1:  # of two classes, the odds of the second
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    else:
        fits = [_fit(features, column, torch.ones(len(column))) for column in held.T]
        weight, bias = (torch.cat(each) for each in zip(*fits, strict=True))
    return known.on_states(weight, bias)


def _fit(features: Tensor, classes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(C=strength(len(set(classes.tolist()))), max_iter=1000)
    made.fit(features.numpy(), classes.long().numpy(), sample_weight=counts.numpy())
    return torch.tensor(made.coef_), torch.tensor(made.intercept_)


def _means(features: Tensor, shares: Tensor) -> Tensor:
    """Return the mean of each class's rows, weighed by their shares: (C, width)."""
    return shares.T @ features / shares.sum(0)[:, None]


def _loss(outputs: Tensor, held: Tensor, known: KnownStates) -> float:
    """Return the squared error of a number, or the cross entropy of scores."""
    if known.number:
        return float((outputs - held).square().mean())
    if known.none is not None:
        return float(F.binary_cross_entropy_with_logits(outputs, held))
    return float(-(held * F.log_softmax(outputs, 1)).sum(1).mean())
