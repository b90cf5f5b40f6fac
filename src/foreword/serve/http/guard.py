"""What stands in front of every route: keys, limits, a request's id, and its line in the log."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foreword.serve.http.errors import ApiError
from foreword.serve.http.service import Service

ADMIN = "/v1/prompts"
PROBES = ("/health", "/metrics")
"""Routes that are asked every few seconds, and have no line in the log."""

TOO_SLOW = "too slow"
"""What a line says of a request that was given up for its time, or for who does not read."""


def log_line(**values: Any) -> None:
    """Write one JSON object on standard error."""
    write_line(sys.stderr, **values)


def write_line(stream: TextIO, **values: Any) -> None:
    """Write one JSON object as a line."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    stream.write(json.dumps({"time": now, **values}, ensure_ascii=True) + "\n")
    stream.flush()


@dataclass
class Passage:
    """One request on its way: what is undone at its end, and what its line in the log says."""

    id: str
    since: float = field(default_factory=time.monotonic)
    undone: ExitStack = field(default_factory=ExitStack)
    about: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    ended: bool = False


def passage(scope: Scope) -> Passage:
    """Return what is kept of a request."""
    found: Passage = scope["foreword"]
    return found


def _shows(scope: Scope) -> bool:
    """Whether a request would see, or remove, the texts of others."""
    path: str = scope["path"]
    return path == "/v1/review" or (path == "/v1/feedback" and bool(scope["method"] == "DELETE"))


class Guard:
    """Lets requests through to an app, or not."""

    def __init__(
        self, app: ASGIApp, service: Service, log: Callable[..., None] | None = log_line
    ) -> None:
        self.app, self.service, self.log = app, service, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens on the way."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        own = Passage(
            given if re.fullmatch(r"[\w-]{1,64}", given, re.ASCII) else secrets.token_hex(8)
        )
        scope["foreword"] = own
        limits = self.service.limits

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = own.id
            elif not message.get("more_body", False):
                own.ended = True
            async with asyncio.timeout(limits.patience):
                await send(message)

        limit = limits.seconds + limits.patience
        try:
            async with asyncio.timeout(limit):
                self._check_key(scope)
                await self.app(scope, self._bounded(scope, receive), sending)
        except ApiError as error:
            await error.response()(scope, receive, sending)
        except TimeoutError:
            own.about["error"] = TOO_SLOW
            if not own.status:
                late = ApiError(408, f"the request took more than {limit:g} seconds")
                await late.response()(scope, receive, sending)
        except Exception as error:  # a fault of the server's own
            own.about["error"] = type(error).__name__
            self._fault(own, error)
            if not own.status:
                await ApiError(500, "the server has a fault").response()(scope, receive, sending)
        finally:
            own.undone.close()
            self._note(scope, own)

    def _check_key(self, scope: Scope) -> None:
        """Raise ApiError, 401, for a request without a key that it needs."""
        path, access = scope["path"], self.service.access
        if not path.startswith("/v1/"):
            return
        admin = path == ADMIN or path.startswith(f"{ADMIN}/")
        if admin and not access.admin_keys:
            return  # there is no such route
        if not (access.api_keys or (access.admin_keys and (admin or _shows(scope)))):
            return
        if _shows(scope) and not access.admin_keys:
            raise ApiError(403, "this needs an admin key, and the server was started without one")
        admin = admin or _shows(scope)
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = kind.lower() == "bearer" and key.strip()
        fits = given and (
            access.admin_keys.fit(key.strip()) or (not admin and access.api_keys.fit(key.strip()))
        )
        if not fits:
            what = "admin key" if admin else "API key"
            raise ApiError(
                401,
                f"{'another' if given else 'an'} {what} is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Return ``receive`` for a body of limited size; raises ApiError, 413, beyond."""
        limits = self.service.limits
        upload = scope["path"] == ADMIN and not Headers(scope=scope).get(
            "content-type", ""
        ).startswith("application/json")
        most = limits.upload if upload else limits.body
        too_large = ApiError(413, f"the body is larger than {most} bytes", code="body_too_large")
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > most:
                    raise too_large
            return message

        return bounded

    def _note(self, scope: Scope, own: Passage) -> None:
        """Count a request, and write its line."""
        seconds = time.monotonic() - own.since
        route = getattr(scope.get("route"), "path", "other")
        metrics = self.service.metrics
        status = own.status or 499  # the client left before there was an answer
        known = self.service.name_prompts and status != 404
        prompt = own.about.get("model", "") if known else ""
        metrics.requests.labels(route, str(status), prompt).inc()
        metrics.seconds.labels(route).observe(seconds)
        if not own.ended:
            metrics.cancelled.inc()
        if self.log is None or route in PROBES:
            return
        about = {n: v for n, v in own.about.items() if n != "model" or self.service.name_prompts}
        gone = {} if own.ended else {"left": True}
        self.log(
            level="info" if status < 500 else "error",
            event="request",
            request=own.id,
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(seconds, 4),
            **about,
            **gone,
        )

    def _fault(self, own: Passage, error: Exception) -> None:
        """Write where a fault arose, without the values that were there."""
        if self.log is None:
            return
        import traceback

        places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        self.log(
            level="error", event="fault", request=own.id, kind=type(error).__name__, at=places[-8:]
        )
