"""Tokens a second of a vLLM server under prompts, beside the same rows without prompts.

`python bench/vllm_throughput.py URL PID MODEL PROMPT...` asks a server that foreword-vllm has
started, whose process is PID. Rounds take turns, so that both meet one machine; a ratio is that
of two rounds side by side. On a busy machine the server's processor time says more than the clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from openai import AsyncOpenAI

ROWS, AT_ONCE, TOKENS, ROUNDS = 16, 16, 24, 48


def processor_seconds(pid: int) -> float:
    """Return what a process and those that it has started have used so far."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += (task / "children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(int(child)) for child in set(children))


async def one_round(
    client: AsyncOpenAI, pid: int, models: Sequence[str], first: int
) -> tuple[float, float]:
    """Write all rows, several at once; return tokens a second, and a second of the processor."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def row(number: int) -> int:
        ids = [1000 + first + number, *range(200, 223)]  # which no cache has seen
        async with gate:
            found = await client.completions.create(
                model=models[number % len(models)],
                prompt=ids,
                max_tokens=TOKENS,
                temperature=0,
                extra_body={"ignore_eos": True, "repetition_penalty": 1.0},
            )
        assert found.usage is not None
        return found.usage.completion_tokens

    begun, used = time.perf_counter(), processor_seconds(pid)
    written = sum(await asyncio.gather(*(row(number) for number in range(ROWS))))
    return written / (time.perf_counter() - begun), written / (processor_seconds(pid) - used)


def interval(found: Sequence[float]) -> tuple[float, float]:
    """Return the 95% bootstrap interval of a median."""
    draw = random.Random(0)
    each = sorted(statistics.median(draw.choices(found, k=len(found))) for _ in range(2000))
    return each[50], each[1949]


async def main(url: str, pid: int, model: str, prompts: Sequence[str]) -> None:
    """Print each pair of rounds, and the ratios by the clock and by the processor."""
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=1800, max_retries=0)
    await one_round(client, pid, prompts, 0)  # prompts are read and tried
    ratios: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        order = [("under", prompts), ("without", [model])]
        found = {}
        for turn, (name, models) in enumerate(order if number % 2 else order[::-1]):
            found[name] = await one_round(client, pid, models, ROWS * (2 * number + turn + 1))
        ratios.append(
            (found["under"][0] / found["without"][0], found["under"][1] / found["without"][1])
        )
        print(json.dumps({**found, "ratios": ratios[-1]}), flush=True)
    for name, each in zip(("clock", "processor"), zip(*ratios, strict=True), strict=True):
        about = {"median": statistics.median(each), "interval": interval(each)}
        print(json.dumps({name: about, "rounds": ROUNDS, "rows": ROWS, "tokens": TOKENS}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
