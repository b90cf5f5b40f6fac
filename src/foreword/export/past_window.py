"""Sliding windows: from where on another program hides a prefix, and how answers part there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from foreword.data.row import Row
from foreword.export.base import Verified
from foreword.export.beside import Reader, compare
from foreword.export.prefix import Prefix
from foreword.prompt.prompt import Prompt


def past_window(prompt: Prompt, prefix: Prefix, rows: Sequence[Row]) -> str | None:
    """Say from where on a sliding window hides a prefix, and how ``rows`` are answered there.

    In Foreword every token sees a learned prefix. None where none may be so long, and for virtual
    tokens alone, which a window hides in Foreword too.
    """
    window = prefix.backbone.window
    written = getattr(getattr(prompt.task, "decoding", None), "max_new_tokens", 0)
    longest = min(prompt.task.max_length + written, prefix.backbone.longest)
    if window is None or prefix.length + longest <= window or not prompt.injection.kv:
        return None
    room = window - prefix.length
    reader = HidingReader(prefix)
    found: list[Verified] = []
    for row in rows:
        reader.longest = 0
        answer = compare(prompt, [row], reader, "transformers")
        if isinstance(answer, Verified) and reader.longest > room:
            found.append(answer)
    said = (
        f"{prefix.backbone.name} has a sliding window ({window}): from the tokens of a row and its "
        f"answer after the first {room} it hides the prefix there, and not in Foreword"
    )
    if not found:
        return f"{said}; no row that was tried is so long: give some, to see how answers part"
    equal = sum(each.equal for each in found) / len(found)
    apart = max(each.difference or 0.0 for each in found)
    return (
        f"{said}; of {len(rows)} rows {len(found)} are so long, and {equal:.0%} of their answers "
        f"are the same where it is hidden, largest difference {apart:.1e}"
    )


class HidingReader(Reader):
    """The model as transformers runs it behind a prefix, which slides out of windows as text does.

    ``longest`` is the number of tokens of the longest row that it has read.
    """

    def __init__(self, prefix: Prefix) -> None:
        super().__init__()
        self.longest = 0
        self._prefix, self._model = prefix, prefix.backbone.model
        self._begin()

    def _begin(self) -> None:
        """Make a cache that holds the prefix alone."""
        backbone, self._held = self._prefix.backbone, 0
        self._cache = DynamicCache(config=self._model.config)
        for site, kv in zip(self._prefix.sites, self._prefix.layers, strict=True):
            keys, values = (
                t[None].to(backbone.device, backbone.dtype) for t in (kv.keys, kv.values)
            )
            layer: Any = site.module.layer_idx
            self._cache.update(keys, values, layer)

    def forget(self, kept: int) -> None:
        """Begin anew, since a window's cache cannot be cut, unless all that is held is kept."""
        if kept != self._held:
            self._begin()
            if kept:
                self._go_on(self._read[:kept])

    def go_on(self, ids: list[int]) -> Tensor:
        """Read on, and return the scores of the next token."""
        scores = self._go_on(ids)
        self.longest = max(self.longest, self._held)
        return scores

    @torch.no_grad()
    def _go_on(self, ids: list[int]) -> Tensor:
        self._held += len(ids)
        given = torch.tensor([ids], device=self._prefix.backbone.device)
        read = self._model(input_ids=given, past_key_values=self._cache, use_cache=True)
        scores: Tensor = read.logits[0, -1]
        return scores.float().cpu()
