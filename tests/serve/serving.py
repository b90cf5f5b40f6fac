"""A real server on loopback, on a tiny model, with prompts of several tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx2
import torch
from openai import OpenAI

import char_model
from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.injection import KV, Injection
from foreword.prompt.prompt import Prompt
from foreword.serve.http.server import address, bound_socket, run_server
from foreword.serve.http.service import Service
from foreword.tasks.base import Task
from foreword.tasks.chat import Chat
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from processes import LOADED, until

ADMIN = "admin-secret"
KEY = "api-secret"


def prefix(backbone: Backbone, seed: int, length: int = 3) -> Injection:
    """A random prefix, large enough to change what is written."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(heads: int, width: int) -> Any:
        return torch.randn(heads, length, width, generator=draws)

    return Injection(
        kv={
            name: KV(drawn(site.heads, site.key_width), drawn(site.heads, site.value_width))
            for name, site in backbone.sites.items()
        },
        positions=length,
    )


def soft(backbone: Backbone, seed: int, length: int = 4) -> Injection:
    """Random virtual tokens."""
    draws = torch.Generator().manual_seed(seed)
    return Injection(torch.randn(length, backbone.width, generator=draws), length)


def prompt_of(backbone: Backbone, task: Task, injection: Injection) -> Prompt:
    about = {
        "name": "model",
        "architecture": backbone.architecture,
        "fingerprint": backbone.fingerprint,
    }
    return Prompt(injection, task, about, {"name": "soft"}, on=backbone)


WRITE = Generate(template="{prompt}:", decoding=Decoding(max_new_tokens=8))
TALK = Chat(template="{messages}", decoding=Decoding(max_new_tokens=8))
SORT = Classify(template="{text} is", labels={"good": " good", "bad": " bad"})
PAIR = Classify(template="{text_a} and {text_b} is", labels={"same": " same", "other": " no"})


def prompts(backbone: Backbone) -> dict[str, Prompt]:
    return {
        "write": prompt_of(backbone, WRITE, prefix(backbone, 1)),
        "soft": prompt_of(backbone, WRITE, soft(backbone, 2)),
        "talk": prompt_of(backbone, TALK, prefix(backbone, 3)),
        "sort": prompt_of(backbone, SORT, prefix(backbone, 4)),
        "pair": prompt_of(backbone, PAIR, soft(backbone, 5)),
    }


@dataclass
class Served:
    """A server's address, what it stands on, and its process."""

    url: str
    folder: Path
    backbone: Backbone
    prompts: Mapping[str, Prompt]
    process: BaseProcess
    errors: Path
    clients: dict[str, OpenAI] = field(default_factory=dict)
    connections: dict[str | None, httpx2.Client] = field(default_factory=dict)

    def client(self, key: str = KEY) -> OpenAI:
        """OpenAI's client, one for each key."""
        if key not in self.clients:
            self.clients[key] = OpenAI(
                base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60
            )
        return self.clients[key]

    def http(self, key: str | None = KEY) -> httpx2.Client:
        """A client of HTTP, one for each key."""
        if key not in self.connections:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            self.connections[key] = httpx2.Client(base_url=self.url, headers=headers, timeout=60)
        return self.connections[key]

    def close(self) -> None:
        for each in (*self.clients.values(), *self.connections.values()):
            each.close()

    def log(self) -> str:
        return self.errors.read_text("utf-8")

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.http().get("/metrics").text.splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith((f"{name} ", f"{name}{{")))


class _EndedError(Exception):
    """Ends a server that runs in a thread."""


@contextmanager
def in_thread(
    folder: Path, backbone: Backbone, *, log: Callable[..., None] | None = None, **settings: Any
) -> Iterator[str]:
    """Serve a folder from a thread of this process; ``settings`` are those of Service."""
    ready = threading.Event()
    service = Service(folder, lambda: backbone, when_ready=lambda own: ready.set(), **settings)
    bound = bound_socket("127.0.0.1", 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what is not read is felt soon
    url = address(bound)

    def run() -> None:
        with suppress(_EndedError):
            run_server(service, bound, log=log)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        yield url
    finally:
        service.when_failed(_EndedError())
        thread.join()


def run_command(arguments: list[str], errors: Path) -> None:
    """Run a command line in this process, its standard error in a file."""
    from foreword.cli.main import run

    torch.set_num_threads(1)
    with errors.open("w", buffering=1) as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        os._exit(run(arguments))


def command(arguments: list[str], errors: Path) -> BaseProcess:
    """Start a command that outlives a test."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    made = context.Process(target=run_command, args=(arguments, errors))
    made.start()
    return made


@contextmanager
def served(base: Path, *more: str, keys: bool = True) -> Iterator[Served]:
    """Serve prompts from a folder of their own; the process ends with the block."""
    folder = base / "prompts"
    folder.mkdir()
    model = char_model.save(base / "model")
    backbone = Backbone.load(model)
    made = prompts(backbone)
    for name, prompt in made.items():
        prompt.save(folder / f"{name}.safetensors")
    errors = base / "errors"
    words = ["serve", str(folder), "--model", model, "--port", "0", *more]
    if keys:
        words += ["--api-key", KEY, "--admin-key", ADMIN]
    process = command(words, errors)
    try:
        until(
            lambda: errors.exists() and " serves " in errors.read_text(),
            lambda: not process.is_alive(),
        )
        said = errors.read_text()
        assert " serves " in said, said
        url = said.split(": listening")[0].split()[-1]
        own = Served(url, folder, backbone, made, process, errors)
        try:
            yield own
        finally:
            own.close()
    finally:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
