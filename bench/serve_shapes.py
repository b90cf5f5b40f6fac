"""What a model needs: memory, time to the first token, tokens a second, for one shape and type.

``random-1b`` and ``random-7b`` are random weights in the shapes of Llama 3.2 1B and Mistral 7B,
made in memory; a step takes as long as with real ones. Requests of 40 tokens run under 32 prompts;
first one alone, then so many at once.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Annotated, Any

import psutil
import torch
from cyclopts import Parameter
from serve_work import Clock, Timed, draw, opened, report

from foreword.serve.engine import Engine
from foreword.serve.request import Sampling


def shapes(
    *,
    model: Annotated[str, Parameter(help="random-1b, random-7b, a name or a folder")] = "random-1b",
    dtype: Annotated[str, Parameter(help="of the weights")] = "auto",
    device: Annotated[str, Parameter(help="auto, cpu or cuda")] = "auto",
    quantize: Annotated[str, Parameter(help="int8 or int4")] = "",
    at_once: Annotated[tuple[int, ...], Parameter(help="requests in flight")] = (1, 8, 32),
    prompts: Annotated[int, Parameter(help="half soft, half prefixes")] = 32,
    new: Annotated[int, Parameter(help="tokens that each writes")] = 16,
    threads: Annotated[int, Parameter(help="of the CPU")] = 2,
    clock: Annotated[Clock, Parameter(help="what is counted")] = "wall",
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Measure memory, time to the first token and tokens a second of a model."""
    torch.set_num_threads(threads)
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    backbone = opened(model, dtype=dtype, device=device, quantize=quantize)
    found: dict[str, Any] = {
        "model": model,
        "weights": sum(p.numel() for p in backbone.model.parameters()),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "quantized": quantize or None,
        "device": _name(backbone.device),
        "seconds_to_open": time.perf_counter() - began,
        "gigabytes_of_the_model": _memory(backbone.device, before),
    }
    work = draw(backbone, prompts, max(at_once), new, seed)
    rows = [(row * 2)[:40] for row in work.rows]
    timed = Timed(clock)
    with Engine(backbone, slots=max(at_once), tokens=128 * max(at_once) * 2) as engine:
        for prompt in work.prompts:
            engine.hold(prompt)
        engine.warm()
        engine.generate(rows[0], work.prompts[0], Sampling(max_new_tokens=2)).result()

        def first() -> None:
            engine.generate(rows[0], work.prompts[1], Sampling(max_new_tokens=1)).result()

        found["seconds_to_the_first_token"] = min(timed.run("first", first) for _ in range(3))
        for count in at_once:
            how = Sampling(max_new_tokens=new)

            def all_of_them(count: int = count, how: Sampling = how) -> None:
                asked = zip(rows[:count], work.owners, strict=False)
                tickets = [engine.generate(row, work.prompts[own], how) for row, own in asked]
                for ticket in tickets:
                    assert len(ticket.result().tokens) == new

            seconds = timed.run(f"{count}", all_of_them)
            found[f"tokens_a_second_at_{count}"] = count * new / seconds
            print(f"{count}: {count * new / seconds:.1f} tokens/s", file=sys.stderr)
        found["gigabytes_of_prompts"] = engine.stats()["prompt_bytes"] / 1e9
    found["gigabytes_while_serving"] = _memory(backbone.device, before)
    found["gigabytes_at_most"] = _most(backbone.device)
    report(found, as_json)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _memory(device: torch.device, before: int) -> float:
    """Return the memory of the device that is taken now, on a CPU that of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e9
    return float(psutil.Process().memory_info().rss - before) / 1e9


def _most(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
