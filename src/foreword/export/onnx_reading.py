"""What the graphs for ONNX share: rows of ids through the layers, under an injection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from foreword.backbone.attention.interface import PassContext
from foreword.backbone.backbone import Backbone
from foreword.injection import Injection, Mixture


class Reading(nn.Module):
    """The layers of a model under an injection, as code of plain tensors that can be traced.

    What changes the model is in its modules; keys, values and virtual tokens are constants.
    """

    def __init__(self, backbone: Backbone, injection: Injection) -> None:
        super().__init__()
        self.network = backbone.with_changes(injection)
        self.model = self.network.model
        self.leading, self.embeds = injection.leading, injection.embeds
        mixture = Mixture.of(replace(injection, embeds=None), 1)
        context, (self.start,) = self.network.pass_context(mixture)
        self.context = traceable(context)

    def passed(self) -> dict[str, Any]:
        """Return the keyword that hands the prefix down, for a model that knows it."""
        return {"foreword": self.context} if self.network.sites else {}

    def led(self, ids: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Put the leading virtual tokens before rows: ids (B, T) and what is no padding (B, T)."""
        if not self.leading:
            return ids, seen
        first = torch.arange(self.leading) + self.network.vocabulary
        return (
            torch.cat([first.expand(ids.shape[0], -1), ids], 1),
            torch.cat([seen.new_ones(1, self.leading).expand(ids.shape[0], -1), seen], 1),
        )

    def embedded(self, ids: Tensor) -> dict[str, Tensor]:
        """Return what the model reads: ids, or embeddings where some are of virtual tokens."""
        if self.embeds is None:
            return {"input_ids": ids}
        count = self.network.vocabulary
        readable, virtual = ids.clamp(max=count - 1), ids >= count
        real = self.network.embed(readable)
        table = self.embeds.to(real.dtype)
        made = torch.where(virtual[..., None], table[(ids - count).clamp(min=0)], real)
        return {"inputs_embeds": made, **self.network.beside(readable, virtual)}

    def hidden(
        self, ids: Tensor, mask: Tensor, places: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Return the last hidden states of rows, of the encoder where there are two: (B, T, width).

        ``places`` are the tokens' positions behind the prefix, on a model that counts them;
        ``cache`` holds what was read before, and then what is read now.
        """
        network = self.network
        stack = self.model.get_encoder() if network.has_two_stacks else self.model.base_model
        inputs: dict[str, Any] = {**self.embedded(ids), "attention_mask": mask, **self.passed()}
        if places is not None:
            inputs["position_ids"] = places + self.start
        if not network.has_two_stacks and "use_cache" in network.accepted:
            inputs |= {"use_cache": cache is not None, "past_key_values": cache}
        found: Tensor = stack(**inputs).last_hidden_state
        return found


def traceable(context: PassContext) -> PassContext:
    """Return a context under which attention does not choose its way by the lengths of rows."""
    assert isinstance(context.kv, Mapping)
    kv = {
        module: replace(own, visible=torch.ones(1, own.keys.shape[2], dtype=torch.bool))
        for module, own in context.kv.items()
    }
    return replace(context, kv=kv)
