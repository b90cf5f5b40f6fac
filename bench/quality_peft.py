"""PEFT's systems as a competent user writes them: padded batches, labels, AdamW, a schedule."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from peft import (
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
    initialize_kv_prefix_from_text,
)
from quality_tasks import Race, Rows
from quality_trace import Judge, room
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from foreword.backbone.attention.interface import NAME
from foreword.backbone.backbone import Backbone
from foreword.backbone.load.sources import folder_of
from foreword.injection import KV, NOTHING, Injection
from foreword.tasks.base import Bound
from foreword.tasks.labels.classifier import Classifier
from foreword.tasks.objective import Encoded
from foreword.training.settings import Training

LENGTH = 20
SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "peft-soft": {"length": LENGTH, "start": "text", "rate": 1e-2},
    "peft-prefix": {"length": LENGTH, "start": "text", "rate": 5e-3},
    "peft-lora": {"r": 8, "alpha": 16, "rate": 5e-4},
}
"""PEFT's systems and their settings, which stand in every record."""


class PeftRun:
    """One of PEFT's systems on its way through a task.

    Wrapping the model is not counted, as loading it is not: for a soft prompt it loads the
    tokenizer anew. Starting a prefix from text and making tokens of the rows are.
    """

    def __init__(
        self, system: str, backbone: Backbone, attention: str, race: Race, rows: Rows, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.system, self.race, self.rows, self.seed = system, race, rows, seed
        # PEFT changes the model that the backbone holds in place, so that the backbone scores it.
        self.backbone, self.attention = backbone, attention
        self.bound: Bound = rows.task.bind(backbone)
        self.judge = Judge(self.bound, rows.dev)
        backbone.model.set_attn_implementation(attention)
        self.model: Any = get_peft_model(backbone.model, self._config()).eval()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.per_epoch = -(-len(rows.train) // race.batch)
        self.steps = self.per_epoch * race.epochs
        self.done = 0

    over = False

    def _config(self) -> Any:
        shape: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM}
        if self.system == "peft-lora":
            own = SYSTEMS[self.system]
            return LoraConfig(**shape, r=own["r"], lora_alpha=own["alpha"])
        if self.system == "peft-prefix":
            return PrefixTuningConfig(**shape, num_virtual_tokens=LENGTH)
        return PromptTuningConfig(
            **shape,
            num_virtual_tokens=LENGTH,
            prompt_tuning_init="TEXT",
            prompt_tuning_init_text=self.bound.instruction(),
            tokenizer_name_or_path=str(folder_of(self.backbone.name)),
        )

    def begin(self) -> None:
        """Start a prefix from text, make tokens of the rows, and an optimizer."""
        if self.system == "peft-prefix":
            text, tokenizer = self.bound.instruction(), self.backbone.text.tokenizer
            words = len(tokenizer(text)["input_ids"])
            # PEFT repeats a soft prompt's text where it is short, and asks a prefix's to be long.
            initialize_kv_prefix_from_text(
                self.model,
                tokenizer,
                text=text * -(-LENGTH // words),
                use_chat_template=False,
            )
        most = room(self.backbone)
        encoded = [self.bound.train_example(row, most) for row in self.rows.train]
        self.items = [_tokens(self.bound, item) for item in encoded]
        rate = SYSTEMS[self.system]["rate"]
        self.optimizer = torch.optim.AdamW(self.trained, lr=rate, weight_decay=0.0)
        factor = Training().factor  # the linear schedule, its warmup 6%
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: factor(step, self.steps)
        )

    def step(self) -> None:
        """Take a training step; no cache is asked for, as transformers' Trainer asks for none."""
        epoch, place = divmod(self.done, self.per_epoch)
        order = list(range(len(self.items)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        size = self.race.batch
        chosen = [self.items[i] for i in order[place * size : (place + 1) * size]]
        self.optimizer.zero_grad(set_to_none=True)
        batch = collated(chosen, self.backbone.pad)
        self.model(**batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1

    def injection(self) -> Injection:
        """Return what has been tuned so far as Foreword's injection; LoRA's is in the model."""
        if self.system == "peft-lora":
            return NOTHING
        tensor = self.model.prompt_encoder["default"].embedding.weight.detach()
        if self.system == "peft-soft":
            return Injection(embeds=tensor, leading=len(tensor))
        sites = self.backbone.need_sites(("self",))
        heads, width = sites[0].heads, sites[0].key_width
        parts = tensor.view(len(tensor), 2 * len(sites), heads, width).permute(1, 2, 0, 3)
        kv = {s.name: KV(parts[2 * n], parts[2 * n + 1]) for n, s in enumerate(sites)}
        return Injection(kv=kv, positions=len(tensor))

    def score(self) -> float:
        """Return the dev score, as Foreword takes it and through its attention function."""
        model = self.backbone.model
        model.set_attn_implementation(NAME)
        try:
            return self.judge(self.backbone, self.injection())
        finally:
            model.set_attn_implementation(self.attention)

    def close(self) -> None:
        """Nothing but memory is held."""


def _tokens(bound: Bound, item: Encoded) -> tuple[list[int], list[int]]:
    """Return a row's tokens and its answer's: a label's whole word, or a completion."""
    answer = list(item.example.answers)
    if isinstance(bound, Classifier):  # whose answers are nodes of its tree of words
        answer = list(next(path for label, path in bound.verbalizer.words if label == item.gold))
    return list(item.example.ids), answer


def collated(rows: list[tuple[list[int], list[int]]], pad: int) -> dict[str, Tensor]:
    """Make a batch as a collator does: padded on the right, -100 where no answer stands."""
    ids = [torch.tensor(prompt + answer) for prompt, answer in rows]
    labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in rows]
    seen = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence(seen, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
