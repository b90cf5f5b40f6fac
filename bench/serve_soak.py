"""A server under load for minutes: no error, the same answers, and memory that stays.

Requests come at random times at a share of the highest load: completions whole and streamed,
labels, clients that leave in the middle of a stream, and clients that ask for a stream and never
read. Beside them prompts are uploaded, replaced, asked and deleted. Some requests are asked again
and again, and must be answered as the first time. What is turned away with 429 is counted apart.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2
from cyclopts import Parameter
from serve_http import (
    SORT,
    WRITE,
    Server,
    client,
    highest_load,
    model_folder,
    quantile,
    serving,
    text,
    workplace,
    write_prompts,
)
from serve_work import report

PROMPTS = 16
"""Prompts of each of the two tasks."""


@dataclass
class Soak:
    """What was asked and answered, and what the server's memory was."""

    server: Server
    files: list[bytes]  # prompts to upload
    new: int
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes
    silent: list[tuple[float, socket.socket]] = field(default_factory=list)  # closed when, what

    def failed(self, what: str) -> None:
        """Keep what went wrong."""
        self.counts["errors"] += 1
        self.errors.append(what[:300])

    # Requests ------------------------------------------------------------------------------------

    async def usual(self, own: httpx2.AsyncClient, chance: random.Random) -> None:
        """Ask for a completion, whole or streamed, or a label."""
        kind = chance.random()
        if kind < 0.4:
            await self.label(own, chance)
        elif kind < 0.8:
            await self.completion(own, chance)
        else:
            await self.stream(own, chance)

    def body(self, chance: random.Random) -> dict[str, Any]:
        """Return a completion to ask for: often one that was asked before."""
        given = text(
            random.Random(chance.randrange(8) if chance.random() < 0.3 else chance.random())
        )
        name = f"w{chance.randrange(PROMPTS)}"
        return {"model": name, "prompt": given, "max_tokens": self.new}

    async def label(self, own: httpx2.AsyncClient, chance: random.Random) -> None:
        """Ask for a label."""
        body = self.body(chance)
        asked = {"model": f"s{body['model'][1:]}", "inputs": body["prompt"]}
        answer = await own.post("/v1/predict", json=asked)
        if self.well(answer, "label"):
            found = json.loads(answer.text)["predictions"]
            self.same(json.dumps(asked), [each["label"] for each in found])

    async def completion(self, own: httpx2.AsyncClient, chance: random.Random) -> None:
        """Ask for a completion."""
        body = self.body(chance)
        answer = await own.post("/v1/completions", json=body)
        if self.well(answer, "completion"):
            self.same(json.dumps(body), json.loads(answer.text)["choices"][0]["text"])

    async def stream(
        self, own: httpx2.AsyncClient, chance: random.Random, leave: bool = False
    ) -> None:
        """Ask for a completion piece by piece; with ``leave`` go after the first one."""
        body, said = self.body(chance), ""
        async with own.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            if answer.status_code != 200:
                await answer.aread()
                self.well(answer, "stream")
                return
            async for line in answer.aiter_lines():
                if leave:
                    self.counts["left"] += 1
                    return
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        self.failed(line)
                        return
                    said += "".join(each["text"] for each in event["choices"])
        self.counts["stream"] += 1
        self.same(json.dumps(body), said)

    async def never_read(self, own: httpx2.AsyncClient, chance: random.Random) -> None:
        """Ask for a long stream, and read nothing of it."""
        body = {**self.body(chance), "max_tokens": 48, "stream": True, "logprobs": 5}
        where, content = urlsplit(self.server.url), json.dumps(body).encode()
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, (where.hostname, where.port))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        await loop.sock_sendall(made, head.encode() + content)
        self.silent.append((time.monotonic() + 20, made))
        self.counts["never read"] += 1

    def well(self, answer: httpx2.Response, what: str, right: int = 200) -> bool:
        """Count an answer; return whether it is what it should be."""
        if answer.status_code == right:
            self.counts[what] += 1
            return True
        if answer.status_code == 429:
            self.counts["turned away"] += 1
        else:
            self.failed(f"{what}: {answer.status_code} {answer.text}")
        return False

    def same(self, asked: str, answered: Any) -> None:
        """Compare an answer with that to the same request before."""
        if self.known.setdefault(asked, answered) != answered:
            self.failed(f"{asked}: {answered!r}, and before {self.known[asked]!r}")

    # What goes on beside them --------------------------------------------------------------------

    async def come_and_go(self, until: float, chance: random.Random) -> None:
        """Upload, replace, ask and delete prompts, one after the other."""
        async with client(self.server.url) as own:
            while time.monotonic() < until:
                name, file = f"up{chance.randrange(4)}", chance.choice(self.files)
                kind = {"Content-Type": "application/octet-stream"}
                route = f"/v1/prompts?name={name}"
                self.well(await own.post(route, content=file, headers=kind), "upload", 201)
                body = {**self.body(chance), "model": name}
                self.well(await own.post("/v1/completions", json=body), "of an upload")
                if chance.random() < 0.5:
                    self.well(await own.delete(f"/v1/prompts/{name}"), "delete")
                    gone = await own.post("/v1/completions", json=body)
                    self.well(gone, "of a deleted prompt", 404)
                bad = await own.post(route, content=file[:-9], headers=kind)
                self.well(bad, "of a damaged file", 400)
                await asyncio.sleep(2)

    async def watch(self, began: float, until: float) -> None:
        """Note the memory every few seconds, and close clients that never read."""
        while (now := time.monotonic()) < until:
            self.resident.append((now - began, self.server.resident()))
            for each in [each for each in self.silent if each[0] < now]:
                each[1].close()
                self.silent.remove(each)
            await asyncio.sleep(min(5.0, max(0.1, (until - began) / 20)))

    async def run(self, rate: float, seconds: float, seed: int) -> None:
        """Send requests at random times for so long."""
        chance, began = random.Random(seed), time.monotonic()
        until, due = began + seconds, began
        tasks: set[asyncio.Task[None]] = set()

        async def one(ask: Callable[..., Awaitable[None]], due: float) -> None:
            try:
                await ask(own, chance)
                self.took.append(time.monotonic() - due)
            except (httpx2.HTTPError, OSError) as error:
                self.failed(f"{type(error).__name__}: {error}")

        async def leaves(own: httpx2.AsyncClient, chance: random.Random) -> None:
            await self.stream(own, chance, leave=True)

        async with client(self.server.url) as own:
            beside = [
                asyncio.create_task(self.watch(began, until)),
                asyncio.create_task(self.come_and_go(until, chance)),
            ]
            while (due := due + chance.expovariate(rate)) < until:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                kind = chance.random()
                ask = self.usual if kind < 0.93 else leaves if kind < 0.98 else self.never_read
                task = asyncio.create_task(one(ask, due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks, *beside)
        for _, left in self.silent:
            left.close()

    def near(self, second: float, within: float) -> float:
        """Return the median of the memory near a second, in bytes."""
        return median(size for at, size in self.resident if abs(at - second) <= within)


def soak(
    *,
    model: Annotated[str, Parameter(help="a name, a folder or a random shape")] = "smollm2",
    minutes: Annotated[float, Parameter(help="of the load")] = 10.0,
    share: Annotated[float, Parameter(help="of the highest load")] = 0.8,
    highest: Annotated[float, Parameter(help="requests a second; 0: it is measured")] = 0.0,
    in_flight: Annotated[int, Parameter(help="requests at once, for the highest load")] = 64,
    measured: Annotated[float, Parameter(help="seconds of the highest load")] = 60.0,
    new: Annotated[int, Parameter(help="tokens that a completion writes")] = 8,
    threads: Annotated[int, Parameter(help="of the server")] = 2,
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="on stdout")] = False,
) -> None:
    """Run a server for minutes at most of its load, and compare its memory."""
    with workplace() as base:
        named, folder = model_folder(model, base), base / "prompts"
        folder.mkdir()
        for letter, task in (("w", WRITE), ("s", SORT), ("u", WRITE)):
            write_prompts(base / letter, named, PROMPTS, task, ord(letter))
            for file in sorted((base / letter).iterdir()) if letter != "u" else ():
                file.rename(folder / f"{letter}{file.name[1:]}")
        files = [file.read_bytes() for file in sorted((base / "u").iterdir())[:6]]
        with serving(named, folder, "--max-seconds", "120", threads=threads) as server:
            made = Soak(server, files, new)
            asyncio.run(highest_load(server.url, made.usual, in_flight, 5.0, seed))  # warm
            if not highest:
                highest = asyncio.run(
                    highest_load(server.url, made.usual, in_flight, measured, seed)
                )
            print(f"highest: {highest:.2f} requests/s", file=sys.stderr)
            made.counts.clear()
            cpu = server.processor_seconds()
            asyncio.run(made.run(share * highest, 60 * minutes, seed + 1))
            cpu = server.processor_seconds() - cpu
            status, lines = server.end(), server.lines
    window = 60 * minutes / 20
    second, last = made.near(12 * minutes, window), made.near(60 * minutes - window, window)
    found = {
        "highest_requests_a_second": highest,
        "counts": dict(made.counts),
        "errors": made.errors[:20],
        "p50": quantile(made.took, 0.5),
        "p99": quantile(made.took, 0.99),
        "megabytes": [(round(at), round(size / 1e6, 1)) for at, size in made.resident],
        "megabytes_at_minute_2_of_10": second / 1e6,
        "megabytes_at_the_end": last / 1e6,
        "growth": last / second - 1,
        "processor_seconds": cpu,
        "exit_status": status,
        "faults_in_the_log": sum("fault" in line for line in lines),
    }
    report(found, as_json)
    if made.errors or status:
        sys.exit(1)
