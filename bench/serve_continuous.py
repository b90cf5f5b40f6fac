"""The engine beside transformers' own continuous batching, which takes token ids and no prompts.

All of ``--in-flight`` requests are there at once, on both sides; the engine answers them under 32
prompts, and once more those of ``--most``. Ends of text are not heeded. Theirs is given
``--limit`` seconds to write all of it; where it does not, what has come back by then is counted.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from serve_work import Clock, Timed, Work, draw, opened, report, serve, spread
from transformers import ContinuousBatchingConfig, GenerationConfig

from foreword.backbone.backbone import Backbone
from foreword.serve.engine import Engine


class Theirs:
    """A model of transformers with its continuous batching, warm and waiting."""

    def __init__(self, backbone: Backbone, implementation: str, limit: float) -> None:
        dtype, device = str(backbone.dtype).removeprefix("torch."), backbone.device.type
        own: Any = opened(backbone.name, dtype=dtype, device=device).model
        own.set_attn_implementation(implementation)
        self.limit, self.finished, self.tokens = limit, 0, 0
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        sizes = ContinuousBatchingConfig(
            num_blocks=64, max_batch_tokens=512, allow_block_sharing=False
        )
        self.manager = own.init_continuous_batching(settings, sizes)
        self.manager.start()

    def run(self, work: Work) -> None:
        """Answer all requests, or what of them is answered in time."""
        self.finished = self.tokens = 0
        self.manager.add_requests(work.rows, max_new_tokens=work.new)
        until = time.monotonic() + self.limit
        while self.finished < len(work.rows) and time.monotonic() < until:
            found = self.manager.get_result(timeout=0.5)
            if found is not None and found.is_finished():
                self.finished += 1
                self.tokens += len(found.generated_tokens)
            if found is None and not self.manager.is_running():
                return  # it has ended with an error

    def close(self) -> None:
        """End the loop, whatever it is doing."""
        self.manager.stop(block=True, timeout=10, hard_stop=True)


def continuous(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    in_flight: Annotated[int, Parameter(help="requests at once, on both sides")] = 16,
    most: Annotated[int, Parameter(help="requests at once, for the engine alone; 0: none")] = 128,
    new: Annotated[int, Parameter(help="tokens that each writes")] = 32,
    rounds: Annotated[int, Parameter(help="of all sides in turn")] = 3,
    prompts: Annotated[int, Parameter(help="that the engine's requests are under")] = 32,
    attention: Annotated[str, Parameter(help="of transformers: sdpa or paged|eager")] = "sdpa",
    limit: Annotated[float, Parameter(help="seconds that transformers has for a round")] = 300.0,
    threads: Annotated[int, Parameter(help="of the CPU")] = 2,
    clock: Annotated[Clock, Parameter(help="what is counted")] = "wall",
    device: Annotated[str, Parameter(help="auto, cpu or cuda")] = "auto",
    dtype: Annotated[str, Parameter(help="of the weights")] = "auto",
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Time the engine beside transformers' continuous batching."""
    torch.set_num_threads(threads)
    backbone = opened(model, dtype=dtype, device=device)
    few = draw(backbone, prompts, in_flight, new, seed)
    many = draw(backbone, prompts, most, new, seed) if most else None
    timed, come = Timed(clock), []
    speeds: dict[str, list[float]] = {}
    theirs = Theirs(backbone, attention, limit)
    with Engine(backbone, slots=max(in_flight, most)) as engine:
        engine.warm()
        for work in (few, many):
            for prompt in () if work is None else work.prompts:
                engine.hold(prompt)
        for number in range(rounds):
            sides = {f"engine, {in_flight}": (partial(serve, engine, few, prompts=True), few)}
            if many is not None:
                sides[f"engine, {most}"] = (partial(serve, engine, many, prompts=True), many)
            for side, (run, work) in sides.items():
                seconds = timed.run(side, run)
                speeds.setdefault(side, []).append(len(work.rows) * new / seconds)
            name = f"transformers, {in_flight}"
            seconds = timed.run(name, partial(theirs.run, few))
            speeds.setdefault(name, []).append(theirs.tokens / seconds)
            come.append(theirs.finished)
            print(f"round {number + 1}: { {n: s[-1] for n, s in speeds.items()} }", file=sys.stderr)
            if theirs.finished < in_flight:
                break
    theirs.close()
    base = speeds.pop(name)
    ratios = {
        side: [own / max(other, 1e-9) for own, other in zip(speed, base, strict=True)]
        for side, speed in speeds.items()
    }
    if as_json:
        tokens = {**speeds, name: base}
        report({"tokens_a_second": tokens, "ratios": ratios, "come_back": come}, as_json)
        return
    print(f"{name}: {spread(base)} tokens/s; {come} of {in_flight} came back")
    for side, speed in speeds.items():
        print(f"{side}: {spread(speed)} tokens/s, {spread(ratios[side])} times that")
