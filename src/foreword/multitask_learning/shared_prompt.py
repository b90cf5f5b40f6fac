"""Multi-task prompt tuning: one shared prompt, times a low-rank part for each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foreword.errors import UserError
from foreword.injection import Injection, Mixture
from foreword.methods.base import Trainable
from foreword.multitask_learning.separate import Owners, mix_injections

NOISE = 0.02
"""Standard deviation of the initial values of U beyond rank 1."""


class SharedPrompt(Trainable):
    """MPT (Wang et al. 2023, arXiv:2303.02861): ``P_t = P* o (U_t V_t^T)``, o element by element.

    P* (n, width) is the shared prompt, built by a method; U_t (n, r) and V_t (width, r) are of
    task t. For keys and values the formula is the same at every attention module: positions by
    (heads * width). The first columns of U_t and V_t start at one; the others start at small noise
    in U_t and at zero in V_t, so that every task starts at P*. As the parameters are shared, the
    best ones are chosen by the mean dev score.

    The paper's distillation from prompts tuned on each task alone (section 3.2) is left out.
    """

    def __init__(self, prompt: Trainable, tasks: int, rank: int, seed: int, owners: Owners) -> None:
        super().__init__()
        self.prompt, self.tasks, self.owners = prompt, tasks, owners
        self.rates = {f"prompt.{start}": rate for start, rate in prompt.rates.items()}
        self.notes = prompt.notes
        with torch.no_grad():
            sizes = [_positions_and_width(tensor) for _, tensor in prompt().tensors()]
        smallest = min(min(size) for size in sizes)
        if not 1 <= rank <= smallest:
            raise UserError(f"`rank={rank}`: give from 1 to {smallest}, the prompt's smaller side")
        noise = torch.Generator().manual_seed(seed)
        device = next(prompt.parameters()).device
        self.u, self.v = nn.ParameterList(), nn.ParameterList()
        for _ in range(tasks):
            for positions, width in sizes:
                drawn = NOISE * torch.randn(positions, rank, generator=noise)
                drawn[:, 0] = 1.0
                ones = torch.zeros(width, rank)
                ones[:, 0] = 1.0
                self.u.append(nn.Parameter(drawn.to(device)))
                self.v.append(nn.Parameter(ones.to(device)))

    def forward(self) -> Mixture:
        """Return the tasks' prompts, one row per task."""
        shared = self.prompt()
        parts = tuple(self._prompt_for(shared, [task]) for task in range(self.tasks))
        return Mixture(parts, range(self.tasks))

    def training_on(self, rows: Sequence[int], chance: torch.Generator) -> Injection | Mixture:
        """Return the prompt of each row's task."""
        return self._prompts_for(self.owners.training, rows)

    def judged_on(self, rows: Sequence[int]) -> Injection | Mixture:
        """Return the prompt of each row's task."""
        return self._prompts_for(self.owners.dev, rows)

    def _prompts_for(self, owners: tuple[int, ...], rows: Sequence[int]) -> Injection | Mixture:
        shared: Injection = self.prompt()
        return mix_injections(owners, rows, lambda task, own: self._prompt_for(shared, [task]))

    def shared(self) -> Injection:
        """Return P* times the mean of all tasks' factors, from which a new task starts."""
        return self._prompt_for(self.prompt(), range(self.tasks))

    def _prompt_for(self, shared: Injection, tasks: Sequence[int]) -> Injection:
        """Return the shared prompt times the mean of these tasks' factors."""
        places = iter(range(len(self.u) // self.tasks))
        several = len(self.u) // self.tasks

        def scaled(tensor: Tensor) -> Tensor:
            place = next(places)
            own = [self.u[n] @ self.v[n].T for n in (task * several + place for task in tasks)]
            factor = torch.stack(own).mean(0)  # (positions, width)
            if tensor.dim() == 2:
                return tensor * factor
            heads, positions, width = tensor.shape
            return tensor * factor.view(positions, heads, width).transpose(0, 1)

        return shared.map(scaled)


def _positions_and_width(tensor: Tensor) -> tuple[int, int]:
    """Return the positions and the width of embeddings (n, width), or of keys (H, n, D)."""
    positions = tensor.shape[-2]
    return positions, tensor.numel() // positions
