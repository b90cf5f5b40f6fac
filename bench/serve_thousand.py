"""A thousand prompts: the memory that they take, and traffic over more than there is room for.

Prompts of 20 positions, half soft and half prefixes, stand as files in a folder. All are opened and
held as keys and values, and the resident memory above the model's is measured. Then requests run
under them, even and by Zipf's law (the k-th prompt is asked 1/k times as often as the first), with
room for ``--room`` prompts, beside even traffic over 32 that all have room. Files are opened as the
server opens them.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
from cyclopts import Parameter
from serve_http import WRITE, prompt_of, workplace
from serve_work import Clock, Timed, draw, opened, report

from foreword.backbone.backbone import Backbone
from foreword.prompt.prompt import Prompt
from foreword.serve.engine import Engine
from foreword.serve.held import held_bytes
from foreword.serve.http.service import release
from foreword.serve.prompts import PromptFolder
from foreword.serve.request import Sampling


def resident() -> int:
    """Return the bytes of memory of this process."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


class Traffic:
    """Requests under prompts of a folder, so many in flight; a prompt is opened for each."""

    def __init__(
        self, engine: Engine, folder: PromptFolder, names: Sequence[str], new: int, in_flight: int
    ) -> None:
        self.engine, self.folder, self.names = engine, folder, names
        self.how = Sampling(max_new_tokens=new)
        self.free = threading.Semaphore(in_flight)

    def run(self, rows: Sequence[Sequence[int]]) -> None:
        """Answer one request a name."""
        tickets = []
        for name, row in zip(self.names, rows, strict=True):
            self.free.acquire()
            prompt = self.folder.open(name)[1]
            assert isinstance(prompt, Prompt)
            ticket = self.engine.generate(row, prompt, self.how)
            ticket.when_done(lambda done: self.free.release())
            tickets.append(ticket)
        for ticket in tickets:
            ticket.result()


def save_all(folder: Path, backbone: Backbone, count: int, seed: int) -> None:
    """Save prompts of 20 positions as ``p0`` to ``pN``."""
    for number, injection in enumerate(draw(backbone, count, 0, 0, seed, longest=20).prompts):
        prompt_of(backbone, injection, WRITE).save(folder / f"p{number}.safetensors")


def thousand(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    prompts: Annotated[int, Parameter(help="of 20 positions")] = 1000,
    room: Annotated[int, Parameter(help="prompts that traffic has room for")] = 100,
    few: Annotated[int, Parameter(help="prompts of the traffic that is compared with")] = 32,
    requests: Annotated[int, Parameter(help="of each traffic")] = 512,
    in_flight: Annotated[int, Parameter(help="requests at once")] = 128,
    new: Annotated[int, Parameter(help="tokens that each writes")] = 16,
    threads: Annotated[int, Parameter(help="of the CPU")] = 2,
    clock: Annotated[Clock, Parameter(help="what is counted")] = "wall",
    device: Annotated[str, Parameter(help="auto, cpu or cuda")] = "auto",
    dtype: Annotated[str, Parameter(help="of the weights")] = "auto",
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Measure the memory of a thousand prompts, and traffic with room for a tenth of them."""
    torch.set_num_threads(threads)
    backbone = opened(model, dtype=dtype, device=device)
    found: dict[str, Any] = {}
    with workplace() as base:
        save_all(base, backbone, prompts, seed)
        found |= _memory(base, backbone, prompts)
        print(found, file=sys.stderr)
        chance = random.Random(seed)
        rows = draw(backbone, 1, requests, new, seed).rows
        one = max(held_bytes(backbone, i) for i in draw(backbone, 2, 0, 0, 0, longest=20).prompts)
        names = [f"p{n}" for n in range(prompts)]
        weights = [1 / (n + 1) for n in range(prompts)]
        asked = {
            f"even over {few}": (chance.choices(names[:few], k=requests), few),
            f"even over {prompts}": (chance.choices(names, k=requests), room),
            f"Zipf over {prompts}": (chance.choices(names, weights, k=requests), room),
        }
        timed = Timed(clock)
        for kind, (chosen, fit) in asked.items():
            with Engine(backbone, slots=in_flight, memory=fit * one) as engine:
                folder = PromptFolder(
                    base, backbone, memory=fit * one, on_close=partial(release, engine)
                )
                engine.warm()
                traffic = Traffic(engine, folder, chosen, new, in_flight)
                seconds = timed.run(kind, partial(traffic.run, rows))
                counts = engine.stats()
                found[kind] = {
                    "tokens_a_second": requests * new / seconds,
                    "prompts_asked": len(set(chosen)),
                    "file_hits": folder.hits / requests,
                    "loaded": counts["prompt_misses"],
                    "open_at_the_end": folder.opened,
                }
                folder.close()
            print(kind, found[kind], file=sys.stderr)
    report(found, as_json)


def _memory(base: Path, backbone: Backbone, count: int) -> dict[str, Any]:
    """Open and hold all prompts; return the memory that this takes."""
    with Engine(backbone, slots=1, tokens=64, memory=2**60) as engine:
        folder = PromptFolder(base, backbone, memory=2**60)
        how = Sampling(max_new_tokens=1)
        engine.generate([5, 6, 7], None, how).result()  # the first pass takes memory of its own
        before, held = resident(), []
        for number in range(count):
            prompt = folder.open(f"p{number}")[1]
            assert isinstance(prompt, Prompt)
            held.append(prompt)
            engine.hold(prompt)
        after, counted = resident(), engine.stats()["prompt_bytes"]
        folder.close()
    return {"gigabytes_above_the_model": (after - before) / 1e9, "counted": counted / 1e9}
