"""Rules of decoding that hold for a row alone and in any batch: penalties, stops, and draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from foreword.backbone.tokenizer import Text

NO_TOKEN = 2**40
"""An id that no vocabulary has; a penalty passes over it."""


class RepetitionPenalty(LogitsProcessor):
    """transformers' penalty over the tokens of each row's text, wherever they were read.

    ``rows`` are the ids of each row with the lead that was read before it. Of the tokens that
    ``generate`` holds, those from ``skipped`` on were written by the model. ``generate`` alone
    would pass over what was read ahead, and count what stands for virtual tokens.
    """

    def __init__(self, penalty: float, rows: Sequence[Sequence[int]], skipped: int) -> None:
        texts = [torch.tensor(list(row), dtype=torch.long) for row in rows]
        self.read = pad_sequence(texts, batch_first=True, padding_value=NO_TOKEN)  # (B, S)
        self.penalize = RepetitionPenaltyLogitsProcessor(float(penalty))
        self.skipped = skipped

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Penalize the scores of beams, (B * beams, vocabulary), for the tokens before them."""
        read = self.read.to(input_ids.device).repeat_interleave(len(scores) // len(self.read), 0)
        penalized: Tensor = self.penalize(
            torch.cat([read, input_ids[:, self.skipped :]], 1), scores
        )
        return penalized


class StopTexts(StoppingCriteria):
    """Ends a completion once its own text, without that of its row, holds one of some texts."""

    def __init__(self, text: Text, stops: Iterable[str], skipped: int) -> None:
        self.text, self.stops, self.skipped = text, tuple(stops), skipped
        # A token has a byte or more; the first ones of a few more may read otherwise when cut off.
        self.reach = max(len(stop.encode()) for stop in self.stops) + 16

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Tell which rows end: (B,)."""
        written = input_ids[:, self.skipped :][:, -self.reach :].tolist()
        return torch.tensor([self.ends(ids) for ids in written], device=input_ids.device)

    def ends(self, written: Sequence[int]) -> bool:
        """Tell whether the last of a completion's tokens hold one of the texts."""
        text = self.text.decode(list(written[-self.reach :]))
        return any(stop in text for stop in self.stops)


class DrawsByRow(TorchFunctionMode):
    """While it is entered, ``torch.multinomial`` draws each row with a generator of its own.

    So the random numbers of a row do not depend on the rows beside it. There is a generator for
    each of ``seeds``; rows of several beams share one.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a torch function, and multinomial row by row."""
        given = dict(kwargs or {})
        if func is not torch.multinomial:
            return func(*args, **given)
        weights, *rest = args
        drawn = [
            torch.multinomial(row, *rest, **{**given, "generator": generator})
            for row, generator in zip(weights[:, None], self.generators, strict=True)
        ]
        return torch.cat(drawn)


def row_seed(seed: int, ids: Iterable[int]) -> int:
    """Return the seed of a row's draws, from the seed of all and the row's tokens."""
    said = f"{seed}:{','.join(map(str, ids))}".encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big") >> 1


def until_end(ids: Iterable[int], ends: Sequence[int]) -> list[int]:
    """Return the ids before the first that ends a completion."""
    return list(takewhile(lambda token: token not in ends, ids))


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return a completion without the first text that ends it, and what follows that."""
    ends = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text
