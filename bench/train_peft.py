"""PEFT's side: a step as its users write it, on the same batches and from the same prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from train_agreement import Reading
from train_cases import Case
from train_foreword import CLIP, RATE, ForewordSide
from transformers import PreTrainedModel

from foreword.errors import UserError
from foreword.tasks.base import Bound
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.objective import Encoded

_CONFIGS = {"soft": PromptTuningConfig, "prefix": PrefixTuningConfig}


def collated(side: ForewordSide, number: int) -> dict[str, Tensor]:
    """Return a batch as a collator makes it: padded on the right, -100 where no answer stands."""
    bound, device = side.loop.objective, side.loop.backbone.device
    rows: list[tuple[list[int], list[int]]] = []
    for item in side.batch(number):
        rows.append((list(item.example.ids), list(_answer(bound, item))))
    ids = [torch.tensor(prompt + answer) for prompt, answer in rows]
    labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in rows]
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _answer(bound: Bound, item: Encoded) -> Sequence[int]:
    """Return the tokens of a row's answer; those of a completion end with the end of text."""
    if not isinstance(bound, Classifier):
        return item.example.answers
    words = dict(bound.verbalizer.words)
    if len(words[item.gold]) > 1:  # PEFT's mean over tokens would not be the mean over rows
        raise UserError(
            f"{bound.backbone.name}: label '{bound.labels[item.gold]}' is "
            f"{len(words[item.gold])} tokens, and only words of one can be compared; "
            "choose another --model"
        )
    return words[item.gold]


class PeftSide:
    """PEFT as its users drive it: an adapter on the model, padded batches with labels."""

    def __init__(
        self,
        model: PreTrainedModel,
        case: Case,
        prompt: Tensor,
        batches: Sequence[Mapping[str, Tensor]],
    ) -> None:
        config = _CONFIGS[case.method](task_type=TaskType.CAUSAL_LM, num_virtual_tokens=len(prompt))
        self.model: Any = get_peft_model(model, config).eval()  # no dropout, as in Foreword
        self.batches = batches
        self.clip = CLIP
        self.loss = torch.tensor(math.nan)
        self.weight: Tensor = self.model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            self.weight.copy_(prompt)
        self.optimizer = torch.optim.AdamW([self.weight], lr=RATE, weight_decay=0.0)

    def step(self, number: int) -> None:
        """Take a training step; no cache is asked for, as transformers' Trainer asks for none."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(**self.batches[number], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.weight], self.clip)
        self.optimizer.step()
        self.loss = loss.detach()

    def read(self, number: int) -> Reading:
        """Take a step, without clipping, and return what it came to."""
        self.clip = math.inf
        self.step(number)
        self.clip = CLIP
        assert self.weight.grad is not None
        return Reading(float(self.loss), self.weight.grad.clone())
