"""The same weights in an untouched transformers model, which oracles ask."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from families import CLASSES
from foreword.backbone.backbone import Backbone


def twin(base: Backbone, attention: str = "eager") -> PreTrainedModel:
    """A model of its own with the backbone's weights and transformers' own attention."""
    config = copy.deepcopy(base.model.config)
    made = CLASSES[base.architecture].from_config(config, attn_implementation=attention)
    made.to(base.dtype).load_state_dict(base.model.state_dict())
    return made.eval().requires_grad_(False)


@torch.no_grad()
def next_logits(model: PreTrainedModel, ids: Sequence[int], said: Sequence[int]) -> Tensor:
    """Scores of the token after ``ids`` and ``said``, by one unbatched pass: (vocabulary,)."""
    if model.config.is_encoder_decoder:
        decoder = torch.tensor([[model.config.decoder_start_token_id, *said]])
        out = model(input_ids=torch.tensor([list(ids)]), decoder_input_ids=decoder)
    else:
        out = model(input_ids=torch.tensor([[*ids, *said]]))
    return out.logits[0, -1].double()
