"""Labels scored by how alike a row and their names are, on an encoder without a trained head."""

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
from foreword.injection import NOTHING
from foreword.tasks.labels.verbalizer import Plan

SCALE = 20.0
"""What a cosine is multiplied by, as in the training of sentence encoders: a temperature of 1/20.

It is that of sentence-transformers' ranking losses.
"""

WHOLE_ROW = Plan(((),), ((0, POOLED),), ())
"""The one target of a row on an encoder: its pooled state."""


@dataclass(frozen=True, eq=False)
class Similar:
    """Scores ``SCALE * cos(x, y)`` of a row's pooled state x and the encoding y of each label.

    ``encode`` gives the encodings, (labels, width), in the frozen model, whatever the rows run
    under. They are taken when they are first needed.
    """

    labels: int
    encode: Callable[[], Tensor]
    tokens = None
    everything = WHOLE_ROW

    @cached_property
    def by_label(self) -> tuple[Plan, ...]:
        """The same plan for all labels."""
        return (WHOLE_ROW,) * self.labels

    @cached_property
    def _encoded(self) -> Tensor:
        return F.normalize(self.encode().float(), dim=1)

    def scores(self, states: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return log-probabilities of the labels: (rows, width) -> (rows, labels)."""
        cosines = F.normalize(states.float(), dim=1) @ self._encoded.to(states.device).T
        return F.log_softmax(SCALE * cosines, 1)

    def losses(self, states: Tensor, examples: Sequence[Example], gold: Sequence[int]) -> Tensor:
        """Return minus the log-probability of each row's label: (rows,)."""
        target = torch.tensor(list(gold), device=states.device)
        return F.nll_loss(self.scores(states, examples), target, reduction="none")


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
