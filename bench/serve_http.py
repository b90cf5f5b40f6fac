"""A real ``foreword serve`` in a process of its own, prompts for it, and a client."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from serve_work import Work, draw, opened
from train_models import SHAPES

from foreword.backbone.backbone import Backbone
from foreword.injection import Injection
from foreword.prompt.prompt import Prompt
from foreword.tasks.base import Task
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate

ADMIN = "admin"
LABELS = {word: f" {word}" for word in ("good", "bad", "late", "lost")}
SORT = Classify(template="{text} is", labels=LABELS)
WRITE = Generate(template="{prompt}")
WORDS = [
    "the",
    "parcel",
    "is",
    "late",
    "and",
    "my",
    "order",
    "was",
    "not",
    "in",
    "the",
    "box",
    "that",
    "came",
    "to",
    "our",
    "house",
    "today",
]


@dataclass
class Server:
    """A server's address and its process."""

    url: str
    process: subprocess.Popen[str]
    folder: Path
    lines: list[str] = field(default_factory=list)  # of its standard error

    def resident(self) -> int:
        """Return the bytes of memory that it has."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def processor_seconds(self) -> float:
        """Return the seconds of the processor that it took."""
        took = psutil.Process(self.process.pid).cpu_times()
        return float(took.user + took.system)

    def end(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


def model_folder(name: str, base: Path) -> str:
    """Return what ``--model`` takes: a name, or the folder of a random model, saved there."""
    if name not in SHAPES:
        return name
    made = opened(name)
    folder = base / "model"
    made.model.save_pretrained(folder)
    made.text.tokenizer.save_pretrained(folder)
    return str(folder)


def prompt_of(backbone: Backbone, injection: Injection, task: Task) -> Prompt:
    """Return a prompt of random numbers as a file would hold it."""
    about = {
        "name": backbone.name,
        "architecture": backbone.architecture,
        "fingerprint": backbone.fingerprint,
    }
    return Prompt(injection, task, about, {"name": "soft"}, on=backbone)


def write_prompts(folder: Path, model: str, count: int, task: Task, seed: int) -> Work:
    """Save prompts as ``p0`` to ``pN``: half soft of 20, half prefixes of 20 to 150 positions."""
    backbone = Backbone.load(model)
    work = draw(backbone, count, 0, 0, seed)
    folder.mkdir(exist_ok=True)
    for number, injection in enumerate(work.prompts):
        prompt_of(backbone, injection, task).save(folder / f"p{number}.safetensors")
    return work


def text(chance: random.Random) -> str:
    """Return a text of about 20 to 60 tokens."""
    return " ".join(chance.choice(WORDS) for _ in range(chance.randint(18, 55)))


@contextmanager
def serving(model: str, folder: Path, *more: str, threads: int = 1) -> Iterator[Server]:
    """Serve a folder; the process ends with the block."""
    words = ["serve", str(folder), "--model", model, "--port", "0", "--quiet"]
    words += ["--admin-key", ADMIN, "--threads", str(threads), *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "foreword", *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    made = Server("", process, folder)
    ready = threading.Event()

    def listen() -> None:
        for line in process.stderr or ():
            made.lines.append(line.rstrip())
            if "serves" in line:
                ready.set()
        ready.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        ready.wait()
        found = re.search(r"(http://\S+?)/v1 serves", "\n".join(made.lines))
        assert found, "\n".join(made.lines)
        made.url = found[1]
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="foreword-bench-") as base:
        yield Path(base)


def client(url: str) -> httpx2.AsyncClient:
    """Return a client of any number of connections, that has the admin key."""
    return httpx2.AsyncClient(
        base_url=url,
        timeout=300,
        headers={"Authorization": f"Bearer {ADMIN}"},
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
    )


Ask = Callable[[httpx2.AsyncClient, random.Random], Awaitable[None]]


async def highest_load(url: str, ask: Ask, in_flight: int, seconds: float, seed: int) -> float:
    """Keep so many requests in flight for a while; return how many a second were answered."""
    answered, chance = 0, random.Random(seed)
    until = time.monotonic() + seconds

    async def worker(own: httpx2.AsyncClient) -> None:
        nonlocal answered
        while time.monotonic() < until:
            await ask(own, chance)
            answered += 1

    async with client(url) as own:
        began = time.monotonic()
        await asyncio.gather(*(worker(own) for _ in range(in_flight)))
        return answered / (time.monotonic() - began)


async def open_loop(url: str, ask: Ask, rate: float, seconds: float, seed: int) -> list[float]:
    """Send requests at random times, ``rate`` a second, whether others are answered or not.

    Returns the seconds from when each was due to its answer.
    """
    chance, took = random.Random(seed), []
    tasks: set[asyncio.Task[None]] = set()

    async def one(own: httpx2.AsyncClient, due: float) -> None:
        await ask(own, chance)
        took.append(time.monotonic() - due)

    async with client(url) as own:
        due = time.monotonic()
        until = due + seconds
        while (due := due + chance.expovariate(rate)) < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(one(own, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    return took


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of all is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def predict(own: httpx2.AsyncClient, name: str, given: str) -> Any:
    """Ask ``/v1/predict`` for the label of one text."""
    answer = await own.post("/v1/predict", json={"model": name, "inputs": given})
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)["predictions"]
