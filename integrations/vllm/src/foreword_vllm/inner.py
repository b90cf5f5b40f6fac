"""The server behind the middleware, asked in the same process, in the name of the same client."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")


def as_request(scope: Scope, path: str, body: bytes, method: str = "POST") -> Scope:
    """Return a scope that asks for another path, with another body."""
    kept = [
        pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")
    ]
    headers = [*kept, JSON, (b"content-length", str(len(body)).encode())]
    root = scope.get("root_path", "")
    made = {"path": root + path, "raw_path": (root + path).encode(), "query_string": b""}
    return {**scope, **made, "method": method, "headers": headers, "state": {}}


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return what gives out a body, and then what the client still says: that it has left."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


class Answer:
    """Keeps an answer instead of sending it."""

    def __init__(self) -> None:
        self.status, self.body = 500, b""

    async def __call__(self, message: Message) -> None:
        """Keep a message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def json(self) -> Any:
        """Return the body as JSON; None for what is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


async def read_body(receive: Receive, most: int) -> bytes | None:
    """Return a request's body, None for one that is longer than ``most`` or whose client left."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_json(send: Send, status: int, value: Any) -> None:
    """Answer with JSON."""
    body = json.dumps(value, ensure_ascii=False).encode()
    headers = [JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(send: Send, status: int, message: str) -> None:
    """Answer with an error of OpenAI's form."""
    kind = "NotFoundError" if status == 404 else "BadRequestError"
    error = {"message": message, "type": kind, "param": None, "code": status}
    await send_json(send, status, {"error": error})
