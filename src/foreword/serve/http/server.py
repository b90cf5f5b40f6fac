"""A server on a socket: from an open port, while the model is loaded, to the last answer."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from foreword.errors import UserError
from foreword.serve.http.app import make_app
from foreword.serve.http.guard import TOO_SLOW, log_line, passage
from foreword.serve.http.service import Service


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket at an address; port 0 takes a free one. Raises UserError for one in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"`port={port}`: cannot listen at {host} ({why}); give another `port` or `host`"
        ) from None
    return made


def address(bound: socket.socket) -> str:
    """Return where a socket listens, as a URL."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """A server that a signal lets end well: what is being answered is answered."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End once all answers are given; at a second signal, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _patient(seconds: float) -> type[H11Protocol]:
    """Return HTTP for clients that say what they want in time: others are left.

    h11 reads no head of more than 64 KiB.
    """

    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._waiting = self.loop.call_later(seconds, self._leave, None)

        def on_response_complete(self) -> None:
            answered = self.cycle
            super().on_response_complete()
            self._waiting.cancel()
            self._waiting = self.loop.call_later(seconds, self._leave, answered)

        def _leave(self, answered: RequestResponseCycle | None) -> None:
            if self.cycle is answered:  # no request has come since
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            # The system cuts off who reads nothing, often before the guard has written enough to
            # wait for it; the request's line says why all the same.
            scope: Any = {} if self.cycle is None else self.cycle.scope
            if isinstance(exc, TimeoutError) and "foreword" in scope:
                passage(scope).about["error"] = TOO_SLOW
            super().connection_lost(exc)

    return Patient


def run_server(
    service: Service, bound: socket.socket, *, log: Callable[..., None] | None = log_line
) -> None:
    """Answer requests at a socket until SIGTERM or Ctrl-C; then what has begun is finished.

    Raises what was raised while the model was loaded.
    """
    failed: list[BaseException] = []
    told = service.when_failed

    def fail(error: BaseException) -> None:
        failed.append(error)
        told(error)
        server.should_exit = True

    service.when_failed = fail
    config = uvicorn.Config(
        make_app(service, log=log),
        http=_patient(service.limits.patience),
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(service.limits.seconds) + 1,
        timeout_keep_alive=30,
        ws="none",
    )
    server = _Server(config)
    with suppress(AttributeError, OSError):  # Linux alone: who reads nothing is cut off
        patience = int(1000 * service.limits.patience)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
    try:
        server.run(sockets=[bound])
    finally:
        bound.close()
    if failed:
        raise failed[0]
