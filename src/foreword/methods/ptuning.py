"""P-tuning: virtual tokens that come out of a small network, of which only these are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from foreword.config.settings import setting
from foreword.data.row import Row
from foreword.errors import UserError, nearest
from foreword.injection import Injection
from foreword.methods.base import Trainable
from foreword.methods.soft import Soft, SoftPrompt
from foreword.tasks.base import Bound

Encoder = Literal["lstm", "mlp"]


@dataclass(frozen=True)
class PTuning:
    """P-tuning (Liu et al. 2021, arXiv:2103.10385).

    The embeddings of ``length`` virtual tokens, in front of a row or where the template has
    ``[soft:...]``, are ``start + MLP(LSTM(E))`` (ibid., equation 5), with a trained E (n, hidden)
    and a bidirectional LSTM of two layers, or ``start + MLP(E)``. The prompt file holds the
    embeddings alone. They start as those of ``soft`` do.
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
    encoder: Encoder = setting(
        "lstm", help="what the virtual tokens pass through in training: lstm or mlp"
    )
    hidden: int = setting(128, help="hidden width of the P-tuning encoder")
    rate: float = setting(3e-3, help="learning rate")

    def build(self, task: Bound, rows: Sequence[Row], seed: int) -> Reparameterized:
        """Start the embeddings; raises UserError for an encoder, or what ``soft`` refuses."""
        if self.encoder not in get_args(Encoder):
            known = nearest(str(self.encoder), get_args(Encoder))
            raise UserError(f"`encoder={self.encoder}`: unknown; {known}")
        if self.hidden < 1:
            raise UserError(f"`hidden={self.hidden}`: give a width of at least 1")
        soft = Soft(self.length, self.start, self.start_text, self.shots).build(task, rows, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = Reparameterized(soft, self.hidden, recurrent=self.encoder == "lstm")
        return made.to(soft.embeds.device)


class Reparameterized(Trainable):
    """A soft prompt that is moved by a network of its own, and not itself trained.

    The network's last layer starts at zero, so that training begins at the soft prompt.
    """

    def __init__(self, soft: SoftPrompt, hidden: int, *, recurrent: bool) -> None:
        super().__init__()
        self.soft = soft.requires_grad_(False)
        length, width = soft.embeds.shape
        self.inputs = nn.Parameter(torch.randn(length, hidden))  # E
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, bidirectional=True) if recurrent else None
        inner = nn.Linear(2 * hidden if recurrent else hidden, hidden)
        outer = nn.Linear(hidden, width)
        nn.init.zeros_(outer.weight)
        nn.init.zeros_(outer.bias)
        self.mlp = nn.Sequential(inner, nn.ReLU(), outer)

    def forward(self) -> Injection:
        """Return the virtual tokens as the network makes them."""
        states: Tensor = self.inputs
        if self.lstm is not None:
            states, _ = self.lstm(states)  # (n, 2 * hidden)
        moved: Tensor = self.mlp(states)  # (n, width)
        made: Injection = self.soft()
        return made.map(lambda start: start + moved)
