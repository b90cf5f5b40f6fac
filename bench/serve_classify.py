"""Classification through ``/v1/predict``: requests a second, and how long each waits.

A real server on loopback, 32 prompts of four labels (half soft, half prefixes), one text of 20 to
60 tokens a request. The highest load is what comes back with ``--in-flight`` requests always under
way. Then requests come at random times, at shares of that load, whether others are answered or
not, so that waiting is seen.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Annotated, Any

import httpx2
from cyclopts import Parameter
from serve_http import (
    SORT,
    highest_load,
    model_folder,
    open_loop,
    predict,
    quantile,
    serving,
    text,
    workplace,
    write_prompts,
)


def classify(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    prompts: Annotated[int, Parameter(help="half soft, half prefixes")] = 32,
    in_flight: Annotated[int, Parameter(help="requests at once, for the highest load")] = 64,
    seconds: Annotated[float, Parameter(help="of each load")] = 60.0,
    loads: Annotated[tuple[float, ...], Parameter(help="shares of the highest")] = (0.1, 0.5, 0.9),
    threads: Annotated[int, Parameter(help="of the server")] = 2,
    device: Annotated[str, Parameter(help="auto, cpu or cuda")] = "auto",
    dtype: Annotated[str, Parameter(help="of the weights")] = "auto",
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Measure labels over HTTP: the highest load, and waits at shares of it."""
    from serve_work import report

    async def ask(own: httpx2.AsyncClient, chance: random.Random) -> None:
        await predict(own, f"p{chance.randrange(prompts)}", text(chance))

    found: dict[str, Any] = {}
    with workplace() as base:
        named = model_folder(model, base)
        write_prompts(base / "prompts", named, prompts, SORT, seed)
        how = ("--device", device, "--dtype", dtype)
        with serving(named, base / "prompts", *how, threads=threads) as server:
            asyncio.run(highest_load(server.url, ask, in_flight, min(5.0, seconds), seed))  # warm
            cpu = server.processor_seconds()
            highest = asyncio.run(highest_load(server.url, ask, in_flight, seconds, seed))
            cpu = server.processor_seconds() - cpu
            found["highest"] = {
                "requests_a_second": highest,
                "requests_a_processor_second": highest * seconds / cpu,
            }
            print(f"highest: {highest:.1f} requests/s", file=sys.stderr)
            for share in loads:
                took = asyncio.run(open_loop(server.url, ask, share * highest, seconds, seed + 1))
                found[f"{share:.0%}"] = {
                    "requests": len(took),
                    "p50": quantile(took, 0.5),
                    "p99": quantile(took, 0.99),
                }
                print(f"{share:.0%}: {found[f'{share:.0%}']}", file=sys.stderr)
            found["exit_status"] = server.end()
    report(found, as_json)
