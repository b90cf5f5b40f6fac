"""Tokens a second of a vLLM server under prompts, beside the same rows without prompts.

`python bench/vllm_throughput.py URL MODEL PROMPT...` asks a server that foreword-vllm has started.
Rounds take turns, so that both meet the same machine; the ratio is that of two rounds side by side.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence

from openai import AsyncOpenAI

ROWS, AT_ONCE, TOKENS, ROUNDS = 32, 16, 32, 6


async def one_round(client: AsyncOpenAI, models: Sequence[str], first: int) -> float:
    """Write all rows, several at once, and return tokens a second."""
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

    begun = time.perf_counter()
    written = await asyncio.gather(*(row(number) for number in range(ROWS)))
    return sum(written) / (time.perf_counter() - begun)


async def main(url: str, model: str, prompts: Sequence[str]) -> None:
    """Print each pair of rounds, and the ratios."""
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=1800, max_retries=0)
    await one_round(client, prompts, 0)  # prompts are read and tried
    ratios = []
    for number in range(ROUNDS):
        order = [("under", prompts), ("without", [model])]
        found = {}
        for turn, (name, models) in enumerate(order if number % 2 else order[::-1]):
            found[name] = await one_round(client, models, ROWS * (2 * number + turn + 1))
        ratios.append(found["under"] / found["without"])
        print(json.dumps({**found, "ratio": ratios[-1]}), flush=True)
    about = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    print(json.dumps({"ratio": about, "rounds": ROUNDS, "rows": ROWS, "tokens": TOKENS}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
