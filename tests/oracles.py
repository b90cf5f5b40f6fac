"""A row's scores by a plain model, one branch at a time, whatever was done to that model."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from families import REACHED, UNREACHED, WINDOWED, Family, backbone
from foreword.backbone.backbone import Backbone
from foreword.backbone.example import Example
from foreword.injection import NOTHING, Injection
from plain import twin

FAMILIES: dict[str, Family] = {f.name: f for f in [*REACHED, *UNREACHED]} | {
    f"{f.name}-window": f for f in WINDOWED
}
FEW = ("llama", "gpt2", "bert", "albert", "t5", "mistral-window", "bloom", "qwen3_moe")
"""One family of every kind."""


@cache
def get(name: str) -> Backbone:
    made = backbone(FAMILIES[name])
    for parameter in made.model.parameters():
        if parameter.dim() > 1:  # as initialized, some hardly heed what stands before a row
            parameter.data.mul_(3)
    return made


@cache
def in_double(base: Backbone) -> Backbone:
    """The same model in float64, where two ways to one number do not part by rounding."""
    model = deepcopy(base.model).double()
    return Backbone(model, base.text.tokenizer, architecture=base.architecture, name=base.name)


def scores(
    base: Backbone, model: PreTrainedModel, example: Example, injection: Injection = NOTHING
) -> Tensor:
    """Logits at the targets (N, vocabulary); a prefix of a causal model stands in its cache."""
    found = []
    for b, j in example.targets:
        branch = list(example.branches[b])
        if base.architecture == "encoder-decoder":
            said = torch.tensor([[model.config.decoder_start_token_id, *branch]])
            out = model(input_ids=torch.tensor([example.ids]), decoder_input_ids=said)
            found.append(out.logits[0, 1 + j])
            continue
        ids = torch.tensor([[*example.ids[: example.slot], *branch, *example.ids[example.slot :]]])
        read = {}
        if injection.kv:
            kept = DynamicCache()
            for name, kv in injection.kv.items():
                kept.update(kv.keys[None], kv.values[None], base.sites[name].layer)
            positions = torch.arange(ids.shape[1])[None] + injection.positions
            read = {"past_key_values": kept, "position_ids": positions}
        found.append(model(input_ids=ids, **read).logits[0, example.slot + j])
    return torch.stack(found)


def embeddings_in_front(base: Backbone, injection: Injection, example: Example) -> Tensor:
    """Write the virtual tokens' embeddings before the row's, and run one branch at a time."""
    assert injection.embeds is not None
    model, lead = twin(base), injection.embeds
    found = []
    for b, j in example.targets:
        branch = list(example.branches[b])
        ids = [*example.ids[: example.slot], *branch, *example.ids[example.slot :]]
        if base.architecture == "encoder-decoder":
            ids = list(example.ids)
        row = torch.cat([lead, model.get_input_embeddings()(torch.tensor(ids))])[None]
        if base.architecture == "encoder-decoder":
            said = torch.tensor([[model.config.decoder_start_token_id, *branch]])
            found.append(model(inputs_embeds=row, decoder_input_ids=said).logits[0, 1 + j])
        else:
            at = len(lead) + example.slot + j
            found.append(model(inputs_embeds=row).logits[0, at])
    return torch.stack(found)
