"""Training: the settings of a run, whatever is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from foreword.errors import UserError, nearest

Schedule = Literal["linear", "cosine", "inverse-sqrt", "plateau", "constant"]
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Training:
    """How a method's parameters are trained.

    A step takes the gradient of the mean loss over ``batch_size`` rows, in as many passes as the
    ``token_budget`` asks for; the mean is that of the whole batch whatever their number.
    ``rate`` None is the method's own. The run stops after ``patience`` evaluations without a better
    dev score. ``checkpointing`` trades time for memory.
    Up to ``cache_gb`` of what the layers below a prefix make of the rows is kept in memory, more
    in a file. ``compile`` fuses each layer's small operations ("auto": where a run is long
    enough to pay for the seconds that this takes).

    ``schedule``: the rate rises over the first ``warmup`` share of the steps, and then falls on a
    line or a half cosine to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983), as the inverse
    square root of the step ("inverse-sqrt", Vaswani et al. 2017, arXiv:1706.03762), stays, or is
    halved after every evaluation without a better dev score ("plateau").

    Regularisers, all off at 0 (regularise.py): ``dropout`` leaves out virtual tokens and positions
    of a prefix, ``l2_start`` holds parameters to where they started, ``mixup`` mixes rows, and
    ``weight_decay`` is AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """

    epochs: int = 4
    batch_size: int = 16
    rate: float | None = None
    schedule: Schedule = "linear"
    warmup: float = 0.06
    weight_decay: float = 0.0
    dropout: float = 0.0
    l2_start: float = 0.0
    mixup: float = 0.0
    clip: float = 1.0
    patience: int | None = None
    seed: int = 0
    token_budget: int | None = None
    checkpointing: bool = False
    cache_gb: float = 2.0
    compile: Compile = "auto"

    def check(self) -> None:
        """Raise UserError for values out of range."""
        for name in ("epochs", "batch_size", "patience", "token_budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        if self.rate is not None:
            check_rate(self.rate)
        if not 0 <= self.warmup <= 1:
            raise UserError(f"warmup is {self.warmup}; it is a share of all steps, from 0 to 1")
        if self.schedule not in get_args(Schedule):
            known = nearest(str(self.schedule), get_args(Schedule))
            raise UserError(f"unknown schedule '{self.schedule}'; {known}")
        if self.compile not in get_args(Compile):
            known = nearest(str(self.compile), get_args(Compile))
            raise UserError(f"unknown compile '{self.compile}'; {known}")
        if self.compile == "on" and self.checkpointing:
            raise UserError("compile 'on' with checkpointing: give one of the two")
        if not 0 <= self.cache_gb < math.inf:
            raise UserError(f"cache_gb is {self.cache_gb}; give gigabytes, 0 for none in memory")
        if not (self.clip > 0 and 0 <= self.weight_decay < math.inf):
            raise UserError("clip must be above 0 and weight_decay not below")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}; give a probability, from 0 to below 1")
        for name in ("l2_start", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; give 0 for none, or more")

    def factor(self, step: int, steps: int, halved: int = 0) -> float:
        """Return what the learning rate is multiplied by at a step, counted from 0.

        ``halved`` counts the evaluations that a plateau has found no better.
        """
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising * 0.5**halved
        rest = (step - rising) / max(1, steps - rising)
        factors: dict[Schedule, float] = {
            "linear": 1 - rest,
            "cosine": 0.5 * (1 + math.cos(math.pi * rest)),
            "inverse-sqrt": math.sqrt(rising / (step + 1)),
            "plateau": 0.5**halved,
            "constant": 1.0,
        }
        return factors[self.schedule]


def check_rate(rate: float) -> None:
    """Raise UserError for a learning rate of 0 or below, or beyond what AdamW can count with."""
    if not 0 < rate < 1e30:
        raise UserError(f"the learning rate is {rate}; it must be above 0 and below 1e30")
