"""How long labels wait while a server learns, beside the same server while it does not.

A real server on loopback with one prompt, and requests at random times. Rows that are labelled lie
in its feedback, so it trains the prompt further in a process of its own. That process is stopped
and goes on in turn, a phase each (SIGSTOP, SIGCONT), and the requests of both phases of a pair are
the same: what else the machine does hits both alike. Once the training is over, the server judges
the version that it made, which cannot be stopped: the phases of that time stand for themselves,
beside some after it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import httpx2
import numpy as np
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

AFTER = 6
"""Phases after the judging, at most."""

PATIENCE = 900.0
"""Seconds in which a training has to begin, and later to end."""


@dataclass
class Phase:
    """The requests of a stretch of time, and what the server learned by meanwhile."""

    kind: str
    waits: list[float]
    load: float
    training_seconds: float  # of the processor

    def told(self) -> dict[str, Any]:
        """Return it in numbers."""
        return {
            "kind": self.kind,
            "requests": len(self.waits),
            "p50": quantile(self.waits, 0.5),
            "p99": quantile(self.waits, 0.99),
            "load": self.load,
            "training_seconds": self.training_seconds,
        }


def learn(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    rows: Annotated[int, Parameter(help="rows of feedback, two of three to train on")] = 630,
    held: Annotated[int, Parameter(help="rows that judge the version")] = 200,
    pairs: Annotated[int, Parameter(help="of a phase that trains and one that does not")] = 6,
    share: Annotated[float, Parameter(help="of the highest load")] = 0.5,
    seconds: Annotated[float, Parameter(help="of a phase")] = 20.0,
    threads: Annotated[int, Parameter(help="of the server")] = 1,
    learn_cpu: Annotated[int, Parameter(help="threads of the training")] = 1,
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Measure labels over HTTP at a share of the highest load, learning and not."""
    from serve_work import report

    async def ask(own: httpx2.AsyncClient, chance: random.Random) -> None:
        await predict(own, NAME, text(chance))

    phases: list[Phase] = []
    with workplace() as base:
        named = model_folder(model, base)
        write_prompts(base / "prompts", named, 2, SORT, seed)
        kept = base / "feedback"
        learned = kept / f"{NAME}.learned.json"
        (base / "run.yaml").write_text("lr: 0.001\nepochs: 1\n", "utf-8")  # the prompt names none
        more = ["--feedback", str(kept), "--learn", "--learn-cpu", str(learn_cpu)]
        more += ["--learn-held", str(held), "--learn-bound", "-100"]  # so that all of it is done
        more += ["--learn-config", str(base / "run.yaml")]
        with serving(named, base / "prompts", *more, threads=threads) as server:
            asyncio.run(highest_load(server.url, ask, 8, min(5.0, seconds), seed))  # warm
            highest = asyncio.run(highest_load(server.url, ask, 8, seconds, seed))

            def measure(kind: str, number: int) -> None:
                began = trained(server)
                waits = asyncio.run(
                    open_loop(server.url, ask, share * highest, seconds, seed + 1 + number)
                )
                took = max(0.0, trained(server) - began)
                phases.append(Phase(kind, waits, os.getloadavg()[0], took))
                print(phases[-1].told(), file=sys.stderr)

            write_feedback(kept / f"{NAME}.jsonl", rows, seed)
            print(f"highest: {highest:.1f} requests/s; a training is to begin", file=sys.stderr)
            training = training_of(server, learned)
            for number in range(pairs):
                for kind in ("still", "training")[:: 1 if number % 2 else -1]:
                    if training.is_running():
                        training.suspend() if kind == "still" else training.resume()
                        measure(kind, number)
            if training.is_running():
                training.resume()
                training.wait(PATIENCE)
            elif phases[-1].kind == "training":
                phases.pop()  # it ended within
            judged = 0
            for judged in count():
                if learned.exists():
                    break
                measure("judging", judged)
            for number in range(min(judged, AFTER)):
                measure("after", number)
            attempt = json.loads(learned.read_bytes())[-1]
            status = server.end()
    report(
        {
            "processors": os.cpu_count(),
            "highest": highest,
            "training": compared(phases, "training", "still"),
            "judging": compared(phases, "judging", "after"),
            "phases": [phase.told() for phase in phases],
            "attempt": attempt,
            "exit_status": status,
        },
        as_json,
    )


def compared(phases: Sequence[Phase], one: str, other: str) -> dict[str, Any]:
    """Compare phases of two kinds, pair by pair, and all of their requests."""
    waits = {kind: [phase.waits for phase in phases if phase.kind == kind] for kind in (one, other)}
    pairs = list(zip(waits[one], waits[other], strict=False))
    made: dict[str, Any] = {"pairs": len(pairs)}
    for kind in (one, other):
        pooled = [wait for each in waits[kind] for wait in each]
        made[kind] = {"requests": len(pooled)}
        if pooled:
            made[kind] |= {f"p{100 * q:.0f}": quantile(pooled, q) for q in (0.5, 0.9, 0.99)}
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        ratios = [quantile(a, q) / quantile(b, q) for a, b in pairs if a and b]
        if ratios:
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            made[f"{name}_ratio"] = {"median": middle, "quartiles": [low, high], "all": ratios}
    return made


def write_feedback(path: Path, count: int, seed: int) -> None:
    """Write rows as a server keeps them, with labels at random."""
    chance = random.Random(seed)
    about = {"time": "2026-01-01T00:00:00+00:00", "version": f"{NAME}@1"}
    lines = []
    for number in range(count):  # of which every third is held back, by its id
        own = {"id": f"{number:08x}{chance.getrandbits(32):08x}", **about}
        row = {"text": text(chance), "label": chance.choice(sorted(LABELS)), "feedback": own}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), "utf-8")


def trained(server: Server) -> float:
    """Return the processor seconds of the training that is under way."""
    took = [each.cpu_times() for each in psutil.Process(server.process.pid).children()]
    return float(sum(each.user + each.system for each in took))


def training_of(server: Server, learned: Path) -> psutil.Process:
    """Wait until a training has loaded its model: it has taken ten seconds of the processor."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if learned.exists():
            raise RuntimeError(learned.read_text("utf-8"))
        if trained(server) > 10:
            return psutil.Process(server.process.pid).children()[0]
        time.sleep(0.5)
    raise RuntimeError("no training has begun; it takes 100 rows that are not held back")
