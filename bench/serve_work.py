"""What the benchmarks of serving share: requests under prompts of random numbers, and clocks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor
from train_models import SHAPES, open_model

from foreword.backbone.backbone import Backbone
from foreword.backbone.load.sources import find_device
from foreword.injection import KV, NOTHING, Injection
from foreword.serve.engine import Engine
from foreword.serve.request import Sampling

Clock = Literal["wall", "cpu"]


class Endless(Backbone):
    """A backbone on which no token ends a text."""

    ends = ()


def opened(name: str, *, dtype: str = "auto", device: str = "auto", quantize: str = "") -> Endless:
    """Open a model by its name, or make one of random weights of a shape (``random-1b`` ...)."""
    quantized = quantize or None
    if name not in SHAPES:
        made = Backbone.load(name, dtype=dtype, device=device, quantize=quantized)
    else:
        place = str(find_device(device))
        word = dtype if dtype != "auto" else "float32" if place == "cpu" else "bfloat16"
        source = open_model(name, word, place, {}, 0)
        how: Any = {"architecture": source.architecture, "name": name, "quantized": quantized}
        made = Backbone(source.model, source.tokenizer, **how, in_place=True)
    made.__class__ = Endless
    assert isinstance(made, Endless)
    return made


@dataclass(frozen=True, eq=False)
class Work:
    """Requests: the prompt of each, by number, and its tokens."""

    prompts: list[Injection]
    owners: list[int]
    rows: list[list[int]]
    new: int


def draw(
    backbone: Backbone, prompts: int, requests: int, new: int, seed: int, *, longest: int = 150
) -> Work:
    """Draw prompts of the scale of the model's own embeddings, keys and values, and requests."""
    noise, chance = torch.Generator().manual_seed(seed), random.Random(seed)
    with torch.no_grad():
        like = backbone.kv([5, 6, 7, 8])
        scale = float(backbone.embed([5, 6, 7, 8]).std())

    def drawn(example: Tensor, length: int) -> Tensor:
        shape = (example.shape[0], length, example.shape[2])
        return float(example.std()) * torch.randn(shape, generator=noise)

    made = []
    for number in range(prompts):
        if number % 2 == 0:
            embeds = backbone.to_device(scale * torch.randn(20, backbone.width, generator=noise))
            made.append(Injection(embeds=embeds, leading=20))
            continue
        size = chance.randint(20, longest)
        kv = {n: KV(drawn(own.keys, size), drawn(own.values, size)) for n, own in like.items()}
        made.append(Injection(kv=kv, positions=size))
    owners = [chance.randrange(prompts) for _ in range(requests)]
    rows = [
        [chance.randrange(3, backbone.vocabulary) for _ in range(chance.randint(20, 60))]
        for _ in range(requests)
    ]
    return Work(made, owners, rows, new)


def serve(engine: Engine, work: Work, *, prompts: bool) -> None:
    """Let the engine answer all requests."""
    how = Sampling(max_new_tokens=work.new)
    tickets = [
        engine.generate(row, work.prompts[owner] if prompts else NOTHING, how)
        for row, owner in zip(work.rows, work.owners, strict=True)
    ]
    for ticket in tickets:
        assert len(ticket.result().tokens) == work.new


class Timed:
    """Seconds of several sides, run in turn. A GPU has done its work before the clock is read."""

    def __init__(self, clock: Clock) -> None:
        self.now = time.perf_counter if clock == "wall" else time.process_time
        self.took: dict[str, list[float]] = {}

    def run(self, name: str, side: Callable[[], None]) -> float:
        """Run a side once; return and keep its seconds."""
        began = self.now()
        side()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = self.now() - began
        self.took.setdefault(name, []).append(seconds)
        return seconds


def spread(values: Sequence[float]) -> str:
    """Write a median with its range."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(found: Mapping[str, Any], as_json: bool) -> None:
    """Print what was found, as JSON or a line each."""
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
