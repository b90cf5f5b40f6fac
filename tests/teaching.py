"""How tiny models are taught a toy language: from any seed, on any processor, in a few seconds.

``TOY_SEED`` of the environment chooses another seed for teaching, and for the tuning that follows;
``make seeds`` runs the tests that learn with ten of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

SEED = int(os.environ.get("TOY_SEED", "0"))


START = 0.1
"""The spread of a model's weights before it is taught. transformers' 0.02 is meant for models of
hundreds of dimensions: in fifty, attention hardly depends on the words, and is slow to begin."""


def teach(model: PreTrainedModel, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Take so many steps of AdamW with a warm-up, each on the loss of a batch that ``loss`` draws.

    T5's weights learn at rates in proportion to their size at the start, as under Adafactor, by
    which T5 was trained. It does not divide attention scores by the square root of the width, but
    starts with queries' weights that are smaller by that, and embeddings that are about fifty times
    larger. At one rate for all, attention is soon all or nothing, and learning a matter of luck.
    """
    parameters = list(model.parameters())
    sizes = [1.0] * len(parameters)
    if model.config.model_type == "t5":
        rate, sizes = 3e-2, [float(p.detach().square().mean().sqrt()) for p in parameters]
    rates = [rate * size for size in sizes]
    groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, pct_start=0.15
    )
    for _ in range(steps):
        found = loss()
        optimizer.zero_grad()
        found.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
