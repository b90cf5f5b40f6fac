"""Labels scored on an encoder without training a head: by its own head, or by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import POOLED, Example
from foreword.engine.passes import states_of
from foreword.errors import UserError
from foreword.injection import NOTHING, ClassHead
from foreword.tasks.labels.verbalizer import Plan

SCALE = 20.0
"""What a cosine is multiplied by, as in the training of sentence encoders: a temperature of 1/20.

It is that of sentence-transformers' ranking losses.
"""

WHOLE_ROW = Plan(((),), ((0, POOLED),), ())
"""The one target of a row on an encoder: its pooled state."""


@dataclass(frozen=True, eq=False)
class FrozenHead:
    """Labels scored by a head that stays as it is, whatever the rows run under.

    It is the encoder's own, or scores ``SCALE * cos(x, y)`` of a row's pooled state x and the
    encoding y of each label. ``make`` gives it when it is first needed.
    """

    labels: int
    make: Callable[[], ClassHead]
    tokens = None
    everything = WHOLE_ROW

    @cached_property
    def by_label(self) -> tuple[Plan, ...]:
        """The same plan for all labels."""
        return (WHOLE_ROW,) * self.labels

    @cached_property
    def _head(self) -> ClassHead:
        return self.make()

    def scores(self, states: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels: (rows, width) -> (rows, labels)."""
        return F.log_softmax(self._head.scores(states).float(), 1)

    def losses(self, states: Tensor, examples: Sequence[Example], gold: Sequence[int]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,)."""
        target = torch.tensor(list(gold), device=states.device)
        return F.nll_loss(self.scores(states, examples), target, reduction="none")


def by_names(backbone: Backbone, words: Sequence[Sequence[str]]) -> ClassHead:
    """Return the head that scores labels by how alike a row and their words are."""
    encoded = encode_labels(backbone, words)
    return ClassHead(encoded, encoded.new_zeros(len(encoded)), encoded.new_tensor(SCALE))


def texts_alone(backbone: Backbone, texts: Sequence[Sequence[int]]) -> Example:
    """Return texts as branches of one example, each of whose pooled states is a target.

    A text is its tokens without the special ones around it.
    """
    first, last = backbone.text.around
    branches = tuple(map(tuple, texts))
    targets = tuple((number, POOLED) for number in range(len(texts)))
    bos = len(first) if backbone.is_causal else 0
    return Example((*first, *last), len(first), branches, targets, bos=bos)


def refuse_before(backbone: Backbone, before: str) -> None:
    """Raise UserError for a text before a row, which an encoder does not read."""
    if before:
        raise UserError(
            f"{backbone.name} is an encoder, which reads no text before a row; leave the "
            "demonstrations out"
        )


def encode(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """Return an encoder's pooled states of texts, without an injection: (texts, width)."""
    first, last = backbone.text.around
    rows = [(*first, *backbone.text.ids(text), *last) for text in texts]
    kept = [row[: backbone.longest] for row in rows]
    examples = [Example(row, len(row), ((),), ((0, POOLED),)) for row in kept]
    return torch.cat(states_of(backbone, NOTHING, examples))


def encode_labels(backbone: Backbone, words: Sequence[Sequence[str]]) -> Tensor:
    """Return the encoding of each label, the mean direction of its words': (labels, width).

    Words are read as texts are, after the prompt of the encoder's folder.
    """
    assert backbone.pooling is not None
    flat = [backbone.pooling.prompt + word.strip() for own in words for word in own]
    found = F.normalize(encode(backbone, flat).float(), dim=1)
    return torch.stack([part.mean(0) for part in torch.split(found, [len(own) for own in words])])
