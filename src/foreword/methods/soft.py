"""Soft prompts: virtual token embeddings in front of a row, or where a template puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import Injection
from foreword.methods.base import Trainable
from foreword.methods.parts.start_from_prompt import choose_start
from foreword.methods.parts.starts import STARTS, USUAL, check_start, start_ids
from foreword.tasks.base import Bound


@dataclass(frozen=True)
class Soft:
    """Prompt tuning (Lester, Al-Rfou and Constant 2021, arXiv:2104.08691).

    The model reads ``[P; E(x)]``: ``length`` trained embeddings P (n, width) before the row's
    embeddings. Where the template places ``[soft:...]``, those are the only virtual tokens.
    ``start`` is one of parts/starts.py; ``shots`` is the number of its demonstrations.
    """

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
    rate: float = setting(1e-2, help="learning rate")

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> SoftPrompt:
        """Start the embeddings; raises UserError for a length or a start that cannot be."""
        check_start(self.start, self.start_text)
        if task.virtual and self.length not in (None, task.virtual):
            raise UserError(
                f"`length={self.length}`, but the template places {task.virtual} virtual "
                "tokens; leave out one of the two"
            )
        length = task.virtual or (USUAL if self.length is None else self.length)
        if not 1 <= length < task.backbone.longest:
            raise UserError(
                f"{length} virtual tokens; give from 1 to {task.backbone.longest - 1}, what the "
                "model's positions hold, with `length` or in the template"
            )
        if self.start not in STARTS:
            return self._as_another(task, rows, seed)
        if task.virtual:
            return SoftPrompt(torch.cat(self._placed(task, rows, seed)), leading=0)
        embeds, bos = self._embeddings(task, rows, length, seed)
        return SoftPrompt(embeds, leading=length, bos=bos)

    def _as_another(self, task: Bound, rows: Sequence[Row], seed: int) -> SoftPrompt:
        asked = task.virtual or self.length

        def fitting(where: str, injection: Injection) -> Injection:
            embeds = injection.embeds
            if embeds is None:
                raise UserError(
                    f"{where}: holds no virtual tokens to start from; start with one that does"
                )
            if asked not in (None, len(embeds)):
                raise UserError(
                    f"{where}: has {len(embeds)} virtual tokens, and {asked} are asked for; "
                    f"ask for {len(embeds)}, or choose another start"
                )
            if task.virtual:
                return Injection(embeds=embeds)
            return Injection(embeds=embeds, leading=len(embeds), bos=injection.bos)

        found, notes = choose_start(self.start, task, rows, seed, fitting)
        assert found.embeds is not None
        return SoftPrompt(found.embeds, found.leading, found.bos, notes)

    def _placed(self, task: Bound, rows: Sequence[Row], seed: int) -> list[Tensor]:
        made = []
        for number, (size, text) in enumerate(task.starts()):
            if text is not None:
                made.append(task.backbone.embed(task.backbone.text.ids(text)).float())
            else:
                made.append(self._embeddings(task, rows, size, seed + number, inside=True)[0])
        return made

    def _embeddings(
        self, task: Bound, rows: Sequence[Row], length: int, seed: int, *, inside: bool = False
    ) -> tuple[Tensor, int]:
        """Return where virtual tokens start, (length, width), and how many of them are BOS."""
        backbone = task.backbone
        if self.start == "random":
            spread = backbone.embed(range(backbone.vocabulary)).float().std()
            noise = torch.Generator().manual_seed(seed)
            drawn = torch.randn(length, backbone.width, generator=noise).to(backbone.device)
            return torch.mul(drawn, spread), 0
        ids, bos = start_ids(
            self.start,
            task,
            rows,
            length=length,
            text=self.start_text,
            shots=self.shots,
            seed=seed,
            inside=inside,
        )
        return backbone.embed(ids).float(), bos


class SoftPrompt(Trainable):
    """The embeddings of a soft prompt: (n, width)."""

    def __init__(
        self, embeds: Tensor, leading: int, bos: int = 0, notes: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.bos = bos
        self.notes = notes
        self.embeds = nn.Parameter(embeds.detach().clone())
        self.leading = leading

    def forward(self) -> Injection:
        """Return the embeddings as they are."""
        return Injection(embeds=self.embeds, leading=self.leading, bos=self.bos)
