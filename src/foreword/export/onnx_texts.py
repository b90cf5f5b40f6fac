"""The graph of generation: tokens in, scores of the next one out, with past keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from foreword.backbone.backbone import Backbone
from foreword.export.onnx_reading import Reading
from foreword.injection import Injection


class TextGraph(nn.Module):
    """A causal model under an injection, whose prefix stands in the graph.

    Rows that run side by side are of one length. ``past`` are the keys and values of what was read
    before, layer by layer, those of the prefix not among them.
    """

    def __init__(self, backbone: Backbone, injection: Injection) -> None:
        super().__init__()
        self.reading = Reading(backbone, injection)
        sites = [site for site in backbone.sites.values() if site.role == "self"]
        self.shapes = [(s.heads, w) for s in sites for w in (s.key_width, s.value_width)]

    @property
    def names(self) -> list[str]:
        """The names of what is past, without what they begin with."""
        return [f"{n}.{kind}" for n in range(len(self.shapes) // 2) for kind in ("key", "value")]

    def forward(self, ids: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the scores of the next token, (B, vocabulary), and what is past then.

        ``ids`` are (B, T); each of ``past`` is (B, heads, tokens, width).
        """
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        before, length = past[0].shape[2], ids.shape[1]
        places = torch.arange(length) + before
        mask = torch.arange(before + length) <= places[:, None]
        hidden = self.reading.hidden(ids, mask[None, None], places[None], cache)
        logits = self.reading.network.logits(hidden[:, -1])
        layers: list[Any] = cache.layers
        held = [tensor for own in layers for tensor in (own.keys, own.values)]
        return logits, *held
