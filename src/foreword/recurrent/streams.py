"""Training on a text cut into parallel streams, resumable after every step."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from foreword.backbone.load.recurrent_model import (
    CELLS,
    RecurrentConfig,
    RecurrentForCausalLM,
    States,
)
from foreword.config.settings import SEEDS, setting
from foreword.errors import UserError, nearest
from foreword.recurrent.tokenizers import BYTES, SPECIAL
from foreword.reporter import Reporter
from foreword.training import checkpoint
from foreword.training.interrupt import Interrupted, interruptible
from foreword.training.loop import SAVE_EVERY
from foreword.training.settings import check_rate

Tokens = Literal["char", "bpe"]

AT_ONCE = 1024
"""Tokens of the held-out text in one pass."""

CLIP = 1.0


@dataclass(frozen=True)
class Pretraining:
    """The settings of a recurrent language model and of its training.

    ``vocabulary`` is the most tokens there may be; None is all characters, or 4096 of BPE. The
    text is cut into ``batch_size`` streams, and a step reads ``sequence`` tokens of each. A
    stream's state is carried from step to step, but its gradient is not (truncated
    backpropagation through time). ``steps``, where given, replaces ``epochs``. The rate of AdamW
    falls linearly to zero.
    """

    arch: str = setting("lstm", help="lstm or gru", common=True, values=("lstm", "gru"))
    tokens: Tokens = setting("char", help="char or bpe", common=True)
    vocabulary: int | None = setting(
        None, help="most tokens there may be; else all characters, or 4096 of bpe"
    )
    width: int = setting(256, help="width of a state", common=True)
    layers: int = setting(2, help="number of layers", common=True)
    dropout: float = setting(0.0, help="dropout between the layers, in training")
    epochs: int = setting(10, help="passes over the text", common=True)
    steps: int | None = setting(None, help="steps, instead of epochs")
    batch_size: int = setting(16, help="streams of text per step")
    sequence: int = setting(64, help="tokens of each stream per step")
    rate: float = setting(2e-3, help="learning rate")
    seed: int = setting(0, help="seed of the first weights")

    def check(self) -> None:
        """Raise UserError for values out of range."""
        for name, known in (("arch", tuple(CELLS)), ("tokens", get_args(Tokens))):
            if getattr(self, name) not in known:
                word = getattr(self, name)
                raise UserError(f"`{name}={word}`: unknown; {nearest(str(word), known)}")
        ranges = {"width": 8192, "layers": 32, "epochs": 10**6, "steps": 10**9}
        for name, most in {**ranges, "batch_size": 10**5, "sequence": 10**5}.items():
            least, value = 2 if name == "width" else 1, getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"`{name}={value}`: give from {least} to {most}")
        least = len(SPECIAL) + (BYTES if self.tokens == "bpe" else 1)
        if self.vocabulary is not None and not least <= self.vocabulary <= 10**6:
            raise UserError(
                f"`vocabulary={self.vocabulary}`: give from {least} to {10**6} for "
                f"`tokens={self.tokens}`"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout={self.dropout:g}`: give from 0 to below 1")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"`seed={self.seed}`: give from 0 to {SEEDS - 1}")
        check_rate(self.rate)


class Streams(nn.Module):
    """The model, and its ``state`` in each stream of the text: (layers, B, S)."""

    def __init__(self, model: RecurrentForCausalLM, streams: int) -> None:
        super().__init__()
        self.model = model
        layers = model.model.layers
        size = CELLS[model.config.cell].vectors * model.config.hidden_size
        self.register_buffer("state", torch.zeros(len(layers), streams, size))
        self.state: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """Read the next tokens of each stream: (B, T) -> logits (B, T, vocabulary)."""
        before = States()
        before.layers = dict(enumerate(self.state.unbind()))
        logits: Tensor = self.model(ids, past_key_values=before).logits
        self.state = torch.stack([before.layers[n] for n in range(len(self.state))]).detach()
        return logits


class Reading:
    """One run: the streams of a text, their optimizer, and how many steps are done."""

    def __init__(
        self,
        settings: Pretraining,
        tokenizer: PreTrainedTokenizerFast,
        ids: Tensor,
        held: Tensor,
        device: torch.device,
    ) -> None:
        self.settings, self.held, self.device = settings, held.to(device), device
        length = (len(ids) - 1) // settings.batch_size
        ends = settings.batch_size * length
        self.inputs = ids[:ends].view(settings.batch_size, length).to(device)
        self.targets = ids[1 : ends + 1].view(settings.batch_size, length).to(device)
        self.per_epoch = -(-length // settings.sequence)
        self.steps = settings.steps or self.per_epoch * settings.epochs
        config = RecurrentConfig(
            cell=settings.arch,
            vocab_size=max(8, len(tokenizer)),  # a backbone is tried out on eight tokens
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            dropout=settings.dropout,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng([]):
            torch.manual_seed(settings.seed)
            self.streams = Streams(RecurrentForCausalLM(config), settings.batch_size).to(device)
        self.optimizer = torch.optim.AdamW(self.streams.parameters(), lr=settings.rate)
        self.progress = checkpoint.Progress(run="")
        self.best: dict[str, Tensor] = {}

    def restore(self, path: Path) -> str:
        """Go on from the checkpoint, if there is one; return a line that says so."""
        found = checkpoint.read(path, self.progress.run, self.streams, self.optimizer)
        if found is None:
            return "nothing to resume: no checkpoint; starting anew"
        self.progress, self.best = found
        return f"resuming at step {self.progress.step} of {self.steps}"

    def go(self, report: Reporter, path: Path) -> None:
        """Take the remaining steps, with checkpoints and scores of the held-out text."""
        saved = time.monotonic()
        with interruptible() as stop:
            while self.progress.step < self.steps:
                self._step(report)
                done = self.progress.step
                judged = done % self.per_epoch == 0 or done == self.steps
                if judged:
                    self._evaluate(report)
                if judged or stop.signal or time.monotonic() - saved > SAVE_EVERY:
                    checkpoint.write(path, self.progress, self.streams, self.optimizer, self.best)
                    saved = time.monotonic()
                if stop.signal and done < self.steps:
                    raise Interrupted(f"stopped at step {done} of {self.steps}", stop.signal)

    def _step(self, report: Reporter) -> None:
        step, settings = self.progress.step, self.settings
        place = step % self.per_epoch
        if place == 0:
            self.streams.state.zero_()
        here = slice(place * settings.sequence, (place + 1) * settings.sequence)
        rate = settings.rate * (1 - step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        targets = self.targets[:, here]
        self.streams.train()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(random.Random(f"{settings.seed}/{step}").getrandbits(63))
            logits = self.streams(self.inputs[:, here])
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.streams.parameters(), CLIP)
        value = loss.item()
        if not math.isfinite(value + float(norm)):
            raise UserError(
                f"the loss is not finite at step {step + 1}; lower `rate` (now {settings.rate:g})"
            )
        self.optimizer.step()
        self.progress.step += 1
        values = {"loss": value, "rate": rate, "norm": float(norm), "rows": targets.numel()}
        report.step(self.progress.step, values)

    @torch.no_grad()
    def _evaluate(self, report: Reporter) -> None:
        """Score the held-out text, and keep the weights that score it best."""
        self.streams.eval()
        model, states, total = self.streams.model, States(), 0.0
        for start in range(0, len(self.held) - 1, AT_ONCE):
            ids = self.held[start : start + AT_ONCE + 1]
            logits = model(ids[None, :-1], past_key_values=states).logits[0]
            total += F.cross_entropy(logits, ids[1:], reduction="sum").item()
        score = -total / (len(self.held) - 1) if math.isfinite(total) else -math.inf
        if self.progress.best_score is None or score >= self.progress.best_score:
            self.progress.best_score = score
            self.best = {n: t.clone() for n, t in model.state_dict().items()}
        report.score(self.progress.step, "perplexity", math.exp(min(-score, 700.0)))
