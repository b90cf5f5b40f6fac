"""ATTEMPT: a soft prompt plus an attention-weighted mixture of prompts of other tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreword.backbone.backbone import Backbone
from foreword.backbone.example import behind
from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Trainable
from foreword.methods.parts.start_from_prompt import prompt_files, read_on_backbone
from foreword.methods.soft import Soft, SoftPrompt
from foreword.tasks.base import Bound
from foreword.tasks.templates.layout import room_for


@dataclass(frozen=True)
class Attempt:
    """Attentional mixtures of soft prompts (ATTEMPT; Asai et al. 2022, arXiv:2205.11961).

    The prompt is ``P + sum_j a_j P_j`` over the frozen soft prompts of ``sources`` (files, or
    folders of them) and the trained P itself, which starts as ``soft`` does. The attention is
    ``a = softmax_j(maxpool(P_j) . G(q) / T)`` with ``G(q) = LayerNorm(W_up SiLU(W_down q))``, an
    inner width of ``bottleneck`` and T = e times the model's width. In the paper q is the
    max-pooled input embeddings of each row; here it is their mean over the training rows, so that
    a is one for the task and the prompt file holds the sum.
    """

    sources: tuple[str, ...] = setting(
        (), help="soft prompts of other tasks to mix: files, or folders of them"
    )
    length: int | None = setting(None, help="number of virtual tokens")
    start: str = setting(
        "text",
        help="random, vocabulary, text, labels, demonstrations, a prompt, or a folder of prompts; "
        "of keys and values also zero",
    )
    start_text: str | None = setting(None, help="the text of start 'text'")
    shots: int | None = setting(
        None, help="demonstrations to start from; else 4, or one of each label if these are short"
    )
    bottleneck: int = setting(100, help="inner width of the attention over the sources")
    rate: float = setting(1e-2, help="learning rate")

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Attended:
        """Start P and the attention; raises UserError for sources of no soft prompt, or others."""
        if self.bottleneck < 1:
            raise UserError(f"`bottleneck={self.bottleneck}`: give a width of at least 1")
        sources = self._read(task.backbone)
        length = sources.shape[1]
        if self.length not in (None, length):
            raise UserError(
                f"`length={self.length}`: the sources have {length} virtual tokens; leave it out"
            )
        if task.virtual not in (0, length):
            raise UserError(
                f"the template places {task.virtual} virtual tokens, and the sources have "
                f"{length}; ask for the same number"
            )
        soft = Soft(None if task.virtual else length, self.start, self.start_text, self.shots)
        target = soft.build(task, rows, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = Attended(target, sources, _query(task, target(), rows), self.bottleneck)
        return made.to(target.embeds.device)

    def _read(self, backbone: Backbone) -> Tensor:
        """Return the sources' virtual tokens: (sources, n, width)."""
        if not self.sources:
            raise UserError("`sources` is missing: name soft prompts of other tasks, or a folder")
        found: list[tuple[Path, Tensor]] = []
        for source in map(Path, self.sources):
            if not source.is_dir():
                found.append((source, _embeds(source, backbone)))
                continue
            before = len(found)
            for file in prompt_files(source, "to mix"):
                try:
                    found.append((file, _embeds(file, backbone)))
                except UserError as error:
                    why = error
            if len(found) == before:
                raise UserError(f"{source}: holds no soft prompt to mix; the last file: {why}")
        first, like = found[0]
        for file, embeds in found:
            if len(embeds) != len(like):
                raise UserError(
                    f"{file}: has {len(embeds)} virtual tokens, and {first} {len(like)}; mix "
                    "prompts of one length"
                )
        return torch.stack([embeds for _, embeds in found])


def _embeds(path: Path, backbone: Backbone) -> Tensor:
    found = read_on_backbone(path, backbone).embeds
    if found is None:
        raise UserError(f"{path}: holds no virtual tokens; mix soft prompts")
    return found


@torch.no_grad()
def _query(task: Bound, target: Injection, rows: Sequence[Row]) -> Tensor:
    """Return the mean over rows of their max-pooled input embeddings: (width,)."""
    backbone = task.backbone
    room = room_for(backbone, target)
    total = torch.zeros(backbone.width, device=backbone.device)
    for row in rows:
        (example,) = behind([task.train_example(row, room).example], target)
        real = [token for token in example.ids if token < backbone.vocabulary]
        total += backbone.embed(real).float().amax(0)
    return total / len(rows)


class Attended(Trainable):
    """The trained P, frozen sources (k, n, width), and the attention over all of them."""

    sources: Tensor
    query: Tensor

    def __init__(self, target: SoftPrompt, sources: Tensor, query: Tensor, inner: int) -> None:
        super().__init__()
        self.target = target
        self.notes = target.notes
        self.register_buffer("sources", sources.float())
        self.register_buffer("query", query)
        width = len(query)
        self.down = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(inner, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def attention(self, prompts: Tensor) -> Tensor:
        """Return how much of each prompt is mixed in: (k + 1, n, width) -> (k + 1,)."""
        asked = self.norm(self.up(F.silu(self.down(self.query))))  # (width,)
        return torch.softmax(prompts.amax(1) @ asked / (math.e * len(asked)), 0)

    def forward(self) -> Injection:
        """Return the mixture as virtual tokens: (n, width)."""
        own: Injection = self.target()
        assert own.embeds is not None
        prompts = torch.cat([self.sources, own.embeds[None]])  # (k + 1, n, width)
        mixed = torch.tensordot(self.attention(prompts), prompts, 1)
        return replace(own, embeds=own.embeds + mixed)
