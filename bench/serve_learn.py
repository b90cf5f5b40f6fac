"""How long labels wait while a server learns, beside a server that does not.

A real server on loopback with one prompt, and requests at random times. First nothing is learned.
Then rows that are labelled already lie in its feedback, a training goes on all the time in a
process of its own, and the same requests come again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx2
import psutil
from cyclopts import Parameter
from serve_http import (
    LABELS,
    SORT,
    Server,
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

NAME = "p1"
"""The prompt that is asked and that learns, a prefix."""


def learn(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    rows: Annotated[int, Parameter(help="rows of feedback, two of three to train on")] = 1200,
    share: Annotated[float, Parameter(help="of the highest load")] = 0.5,
    seconds: Annotated[float, Parameter(help="of each load")] = 60.0,
    threads: Annotated[int, Parameter(help="of the server")] = 1,
    learn_cpu: Annotated[int, Parameter(help="threads of the training")] = 1,
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Measure labels over HTTP at a share of the highest load, learning and not."""
    from serve_work import report

    async def ask(own: httpx2.AsyncClient, chance: random.Random) -> None:
        await predict(own, NAME, text(chance))

    found: dict[str, Any] = {"processors": os.cpu_count()}
    with workplace() as base:
        named = model_folder(model, base)
        write_prompts(base / "prompts", named, 2, SORT, seed)
        kept = base / "feedback"
        (base / "run.yaml").write_text("lr: 0.001\n", "utf-8")  # these prompts name no rate
        more = ["--feedback", str(kept), "--learn", "--learn-cpu", str(learn_cpu)]
        more += ["--learn-config", str(base / "run.yaml")]
        with serving(named, base / "prompts", *more, threads=threads) as server:
            asyncio.run(highest_load(server.url, ask, 8, min(5.0, seconds), seed))  # warm
            highest = asyncio.run(highest_load(server.url, ask, 8, seconds / 2, seed))
            found["highest"] = highest
            for name in ("not learning", "learning"):
                if name == "learning":
                    write_feedback(kept / f"{NAME}.jsonl", rows, seed)
                    wait_for_training(server)
                load = os.getloadavg()[0]
                took = asyncio.run(open_loop(server.url, ask, share * highest, seconds, seed + 1))
                found[name] = {
                    "requests": len(took),
                    "p50": quantile(took, 0.5),
                    "p99": quantile(took, 0.99),
                    "load": [load, os.getloadavg()[0]],
                    "training": bool(trainings(server)),  # still, at the end
                }
                print(f"{name}: {found[name]}", file=sys.stderr)
            found["exit_status"] = server.end()
    report(found, as_json)


def write_feedback(path: Path, count: int, seed: int) -> None:
    """Write rows as a server keeps them, with labels at random."""
    chance = random.Random(seed)
    about = {"time": "2026-01-01T00:00:00+00:00", "version": f"{NAME}@1"}
    lines = []
    for _ in range(count):
        own = {"id": secrets.token_hex(8), **about}
        row = {"text": text(chance), "label": chance.choice(sorted(LABELS)), "feedback": own}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), "utf-8")


def trainings(server: Server) -> Sequence[psutil.Process]:
    """Return the processes that a server has started."""
    return psutil.Process(server.process.pid).children()


def wait_for_training(server: Server) -> None:
    """Wait until a training has loaded its model: it has taken ten seconds of the processor."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        for each in trainings(server):
            took = each.cpu_times()
            if took.user + took.system > 10:
                return
        time.sleep(0.5)
    raise RuntimeError("no training has begun")
