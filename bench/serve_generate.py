"""Many prompts on one model: the engine, the same without prompts, the floor, and PEFT.

    python bench/serve.py generate [--model smollm2] [--requests 128] [--rounds 3] [--adapters 32]

Requests of 20 to 60 random tokens are in flight together, each under one of 32 prompts drawn at
random: half are soft (20), half prefixes of 20 to 150 positions, of random numbers. Each writes
``--new`` tokens, greedily; ends of text are not heeded, so that all sides write as many. The sides
run in turn, round by round. The floor is the matrix products of all tokens alone: those read in
passes of ``--chunk``, those written in passes of one a row, and the head at each that is written.
PEFT runs the requests of one adapter after the other, batched within each; with ``--adapters`` only
those of some, and its time is that of all by their share of the requests.

``--clock cpu`` counts the seconds of the process on all its threads, for a machine that has other
work; with one thread that is what an idle machine would take.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from cyclopts import Parameter
from serve_work import Clock, Timed, Work, draw, opened, serve
from torch import Tensor
from train_floor import products

from foreword.backbone.backbone import Backbone
from foreword.serve.engine import Engine


class Floor:
    """The matrix products of the work alone."""

    def __init__(self, backbone: Backbone, work: Work, chunk: int) -> None:
        self.products = [product.weight for product in products(backbone)]
        head: Any = backbone.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.head: Tensor = head.weight
        read, rows = sum(map(len, work.rows)), len(work.rows)
        passes = [chunk] * (read // chunk) + [read % chunk] * bool(read % chunk)
        self.passes = passes + [rows] * (work.new - 1)
        self.heads = [rows] * work.new
        sizes = {(n, weight.shape[1]) for n in self.passes for weight in self.products}
        sizes |= {(rows, self.head.shape[1])}
        like = {"dtype": self.head.dtype, "device": self.head.device}
        self.inputs = {size: torch.randn(size, **like) for size in sizes}

    @torch.no_grad()
    def run(self) -> None:
        """Take all products."""
        for tokens in self.passes:
            for weight in self.products:
                F.linear(self.inputs[tokens, weight.shape[1]], weight)
        for rows in self.heads:
            F.linear(self.inputs[rows, self.head.shape[1]], self.head)


class Peft:
    """PEFT: a model with an adapter a prompt; each kind of adapter asks for a model of its own.

    ``count`` is how many of the adapters, drawn at random, are timed.
    """

    def __init__(self, backbone: Backbone, work: Work, count: int, seed: int) -> None:
        from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

        self.backbone, self.work = backbone, work
        self.models: dict[int, Any] = {}
        by_kind: dict[bool, Any] = {}
        for number, prompt in enumerate(work.prompts):
            soft = prompt.embeds is not None
            kind = PromptTuningConfig if soft else PrefixTuningConfig
            size = 20 if soft else prompt.positions
            config = kind(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=size)
            name = f"p{number}"
            if soft not in by_kind:
                own = opened(backbone.name).model
                own.set_attn_implementation("sdpa")
                by_kind[soft] = get_peft_model(own, config, adapter_name=name).eval()
            else:
                by_kind[soft].add_adapter(name, config)
            self.models[number] = by_kind[soft]
        used = sorted(set(work.owners))
        self.timed = random.Random(seed).sample(used, min(count, len(used)))
        self.share = sum(owner in self.timed for owner in work.owners) / len(work.owners)

    @torch.no_grad()
    def run(self) -> None:
        """Answer the requests adapter by adapter."""
        work = self.work
        for number in self.timed:
            model = self.models[number]
            rows = [r for r, owner in zip(work.rows, work.owners, strict=True) if owner == number]
            model.set_adapter(f"p{number}")
            longest = max(map(len, rows))
            ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
            more: dict[str, Any] = {"max_new_tokens": work.new, "min_new_tokens": work.new}
            model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0, **more
            )


def generate(
    *,
    model: Annotated[str, Parameter(help="a name or a folder")] = "smollm2",
    prompts: Annotated[int, Parameter(help="half soft, half prefixes")] = 32,
    requests: Annotated[int, Parameter(help="in flight together")] = 128,
    new: Annotated[int, Parameter(help="tokens that each writes")] = 32,
    chunk: Annotated[int, Parameter(help="tokens of a pass that reads")] = 512,
    rounds: Annotated[int, Parameter(help="of all sides in turn")] = 3,
    adapters: Annotated[int, Parameter(help="that PEFT is timed on, once; 0 without")] = 32,
    threads: Annotated[int, Parameter(help="of the CPU")] = 2,
    clock: Annotated[Clock, Parameter(help="what is counted")] = "wall",
    dtype: Annotated[str, Parameter(help="of the weights")] = "auto",
    device: Annotated[str, Parameter(help="auto, cpu or cuda")] = "auto",
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Time the engine, the same without prompts, the floor and PEFT."""
    torch.set_num_threads(threads)
    backbone = opened(model, dtype=dtype, device=device)
    work = draw(backbone, prompts, requests, new, seed)
    timed = Timed(clock)
    took = timed.took
    with Engine(backbone, slots=requests, chunk=chunk) as engine:
        for prompt in work.prompts:
            engine.hold(prompt)
        engine.warm()
        sides: dict[str, Callable[[], None]] = {
            "engine": partial(serve, engine, work, prompts=True),
            "no prompt": partial(serve, engine, work, prompts=False),
            # in the engine's thread, so that no other one's OpenMP threads are in the way
            "floor": partial(engine._do, Floor(backbone, work, chunk).run),
        }
        for number in range(rounds):
            for name, side in sides.items():
                seconds = timed.run(name, side)
                print(f"round {number + 1}: {name} {seconds:.1f} s", file=sys.stderr)
        counts = dict(engine.stats())
    if adapters:
        theirs = Peft(backbone, work, adapters, seed)
        timed.run("PEFT", theirs.run)
        took["PEFT"] = [took["PEFT"][0] / theirs.share]
    _report(took, requests * new, counts, as_json)


def _report(
    took: dict[str, list[float]], tokens: int, counts: dict[str, float], as_json: bool
) -> None:
    ratios = {
        name: [other / own for other, own in zip(_of(took, name), took["engine"], strict=False)]
        for name in ("no prompt", "floor", "PEFT")
        if name in took
    }
    if as_json:
        print(json.dumps({"seconds": took, "tokens": tokens, "ratios": ratios, "counts": counts}))
        return
    for name, seconds in took.items():
        print(f"{name}: {tokens / median(seconds):.1f} tokens/s", end="")
        spread = ratios.get(name)
        print(f"; the engine's speed is {_shown(spread, name)}" if spread else "")


def _of(took: dict[str, list[float]], name: str) -> Sequence[float]:
    return took[name] * len(took["engine"]) if name == "PEFT" else took[name]


def _shown(ratios: Sequence[float], name: str) -> str:
    unit, scale = ("times this", 1.0) if name == "PEFT" else ("% of this", 100.0)
    low, mid, high = (scale * x for x in (min(ratios), median(ratios), max(ratios)))
    return f"{mid:.1f} {unit} ({low:.1f} to {high:.1f})"
