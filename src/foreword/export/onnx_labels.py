"""The graph of a label task: token ids of rows in, what is asked of every label out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foreword.backbone.attention.masks import ancestors
from foreword.backbone.example import depths, tree_of
from foreword.backbone.run.encoder_decoder import decoder_start
from foreword.export.onnx_reading import Reading
from foreword.export.onnx_recipe import ANSWER, PADDING
from foreword.injection import Injection
from foreword.tasks.labels.calibrate import calibrate
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.multilabel import ManyLabels
from foreword.tasks.score import Anchors


class LabelGraph(nn.Module):
    """A label task under an injection, which stands in the graph as constants.

    Rows are padded on the right. A subclass says how the answer's tokens are put to a row.
    ``blank`` are the log-probabilities of content-free rows, (rows, labels), by which answers are
    calibrated.
    """

    def __init__(self, bound: Classifier, injection: Injection, blank: Tensor | None) -> None:
        super().__init__()
        self.reading = Reading(bound.backbone, injection)
        self.bound, self.blank = bound, blank
        self.plan = bound.verbalizer.everything

    def states(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Return the states at the targets of every row: (B, targets, width).

        ``seen`` (B, T) is 1 where the rows are no padding.
        """
        raise NotImplementedError

    def forward(self, ids: Tensor) -> Tensor:
        """Return the probabilities of labels, (B, labels), or the numbers that they say: (B, 1).

        ``ids`` (B, T) are rows of tokens, with ``PADDING`` behind the shorter ones and, for a
        masked model, ``ANSWER`` where the answer stands.
        """
        seen = (ids != PADDING).long()
        states = self.states(torch.where(ids == PADDING, 0, ids), seen).flatten(0, 1)
        logits = self.reading.network.logits(states, self.bound.tokens)
        scores = self.bound.verbalizer.scores(logits, ())
        if self.blank is not None:
            scores = calibrate(scores, self.blank)
        if isinstance(self.bound.labelling, ManyLabels):
            return torch.sigmoid(self.bound.labelling.odds(scores))
        if isinstance(self.bound.labelling, Anchors):
            return (scores.exp() * torch.tensor(self.bound.labelling.numbers)).sum(1, keepdim=True)
        return scores.exp()


class CausalLabels(LabelGraph):
    """On a causal model, and on any encoder: label words are a tree of tokens behind each row."""

    def __init__(self, bound: Classifier, injection: Injection, blank: Tensor | None) -> None:
        super().__init__(bound, injection, blank)
        self.tree = tree_of(self.plan.branches)
        size = len(self.tree.tokens)
        self.depths = torch.tensor(depths(self.tree.parents), dtype=torch.long)
        self.above = (
            ancestors([self.tree.parents], size)[0, 0]
            if size
            else torch.zeros(0, 0, dtype=torch.bool)
        )

    def states(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Run the rows with the tree behind each, past the padding."""
        ids, seen = self.reading.led(ids, seen)
        rows, length = ids.shape[0], ids.shape[1]
        sizes = seen.sum(1)
        if not self.reading.network.is_causal:
            return self._pooled(self.reading.hidden(ids, seen), ids, sizes)[:, None]
        size = len(self.tree.tokens)
        tree = torch.tensor(self.tree.tokens, dtype=torch.long).expand(rows, size)
        places = torch.arange(length).expand(rows, length)
        places = torch.cat([places, sizes[:, None] + self.depths], 1)
        real = seen.bool()
        own = torch.ones(length, length, dtype=torch.bool).tril() & real[:, None]
        hidden = torch.zeros(rows, length, size, dtype=torch.bool)
        above = torch.cat([own, hidden], 2)
        below = torch.cat([real[:, None].expand(rows, size, length), self._trees(rows)], 2)
        mask = torch.cat([above, below], 1)[:, None]
        states = self.reading.hidden(torch.cat([ids, tree], 1), mask, places)
        if self.reading.network.is_encoder:
            return self._pooled(states, ids, sizes)[:, None]
        asked = [-1 if j < 0 else self.tree.places[b][j] for b, j in self.plan.targets]
        last = (sizes - 1)[:, None]
        first = torch.zeros_like(last) + length
        index = torch.cat([last if n < 0 else first + n for n in asked], 1)
        return _at(states, index)

    def _trees(self, rows: int) -> Tensor:
        return self.above.expand(rows, *self.above.shape)

    def _pooled(self, states: Tensor, ids: Tensor, sizes: Tensor) -> Tensor:
        """Return the pooled states of rows whose tokens are no padding: (B, width)."""
        network = self.reading.network
        assert network.pooling is not None
        mode = network.pooling.mode
        if mode in ("cls", "last"):
            index = torch.zeros_like(sizes) + self.reading.leading if mode == "cls" else sizes - 1
            return network.features(_at(states, index[:, None])[:, 0])
        places = torch.arange(ids.shape[1])
        counted = ((places < sizes[:, None]) & (ids < network.vocabulary)).to(states.dtype)
        if mode == "weightedmean":
            counted = counted * counted.cumsum(1)
        weights = counted / counted.sum(1, keepdim=True)
        return network.features((weights[..., None] * states).sum(1))


class MaskedLabels(LabelGraph):
    """On a masked model: each number of mask tokens makes a row of its own."""

    def states(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Run each row with the branches in its slot, one after the other."""
        branches = self.plan.branches
        longest = max(map(len, branches))
        length, sizes = ids.shape[1], seen.sum(1) - 1  # without the answer's place
        at = (torch.arange(length) * (ids == ANSWER)).sum(1, keepdim=True)
        places = torch.arange(length + longest)[None]
        lines, real = [], []
        for branch in branches:
            size = len(branch)
            own = torch.tensor(branch, dtype=torch.long)
            before = places < at
            inside = ~before & (places < at + size)
            source = torch.where(before, places, places - size + 1).clamp(0, length - 1)
            line = torch.where(inside, own[(places - at).clamp(0, size - 1)], ids.gather(1, source))
            there = places < sizes[:, None] + size
            lines.append(torch.where(there, line, self.reading.network.pad))
            real.append(there)
        wide = torch.stack(lines, 1).flatten(0, 1)
        wide, mask = self.reading.led(wide, torch.stack(real, 1).flatten(0, 1).long())
        states = self.reading.hidden(wide, mask)
        # (B, branches, tokens, width)
        states = states.view(-1, len(branches), *states.shape[1:])
        lead = self.reading.leading
        return torch.stack(
            [_at(states[:, b], at + lead + j)[:, 0] for b, j in self.plan.targets], 1
        )


class DecodedLabels(LabelGraph):
    """On an encoder-decoder: each branch is a row of the decoder."""

    def states(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Encode the rows, and decode the branches over each encoding."""
        network = self.reading.network
        ids, seen = self.reading.led(ids, seen)
        encoded = self.reading.hidden(ids, seen)
        start, branches = decoder_start(network), self.plan.branches
        longest = max(map(len, branches))
        rows = [[start, *own, *[network.pad] * (longest - len(own))] for own in branches]
        count = len(rows)
        decoder: Any = network.model.get_decoder()  # type: ignore[no-untyped-call]
        hidden: Tensor = decoder(
            input_ids=torch.tensor(rows).repeat(ids.shape[0], 1),
            encoder_hidden_states=encoded.repeat_interleave(count, 0),
            encoder_attention_mask=seen.repeat_interleave(count, 0),
            use_cache=False,
            **self.reading.passed(),
        ).last_hidden_state
        hidden = hidden.view(-1, count, *hidden.shape[1:])
        return torch.stack([hidden[:, b, 1 + j] for b, j in self.plan.targets], 1)


def label_graph(bound: Classifier, injection: Injection, blank: Tensor | None) -> LabelGraph:
    """Return the graph of a label task for the kind of model that it is bound to."""
    backbone = bound.backbone
    if backbone.fills_masks:
        return MaskedLabels(bound, injection, blank)
    if backbone.has_two_stacks:
        return DecodedLabels(bound, injection, blank)
    return CausalLabels(bound, injection, blank)


def _at(states: Tensor, index: Tensor) -> Tensor:
    """Return states at places: (B, T, width) and (B, N) -> (B, N, width)."""
    return states.gather(1, index[..., None].expand(-1, -1, states.shape[2]))
