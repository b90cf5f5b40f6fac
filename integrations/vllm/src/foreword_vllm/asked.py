"""A request for a prompt, and the server behind the middleware, asked in its client's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword_vllm.answers import Rewriter, Rewritten
from foreword_vllm.errors import RequestError
from foreword_vllm.inner import (
    Answer,
    App,
    Receive,
    Scope,
    Send,
    as_request,
    replaying,
    send_error,
    send_json,
)


@dataclass(frozen=True)
class Asked:
    """A request for a prompt, and the server behind, asked in its client's name.

    ``served`` holds the name of vLLM's model, once that is known.
    """

    app: App
    scope: Scope
    receive: Receive
    send: Send
    body: bytes
    served: list[str]

    async def passed_on(self) -> None:
        """Let the server behind answer the request as it is."""
        await self.app(self.scope, replaying(self.body, self.receive), self.send)

    async def refuse(self, error: RequestError) -> None:
        """Say what is wrong, to a client whose key vLLM takes; others hear of that alone."""
        request, answer = as_request(self.scope, "/v1/models", b"", "GET"), Answer()
        await self.app(request, replaying(b"", self.receive), answer)
        if answer.status == 200:
            await send_error(self.send, error.status, str(error))
        else:
            await send_json(self.send, answer.status, answer.json())

    async def get(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask the server behind, and return its JSON; raises RequestError where it refuses."""
        sent, answer = json.dumps(body).encode(), Answer()
        request = as_request(self.scope, path, sent)
        await self.app(request, replaying(sent, self.receive), answer)
        found = answer.json()
        if answer.status != 200 or found is None:
            error = (found or {}).get("error") or {}
            message = error.get("message") if isinstance(error, dict) else error
            raise RequestError(str(message or f"vLLM answered {answer.status}"), answer.status)
        return found

    async def rewritten(self, body: Mapping[str, Any], rewriter: Rewriter) -> None:
        """Let the server behind complete, and send on what it answers."""
        sent = json.dumps(body).encode()
        request = as_request(self.scope, "/v1/completions", sent)
        await self.app(request, replaying(sent, self.receive), Rewritten(self.send, rewriter))

    async def tokenize(self, text: str | list[Any]) -> list[int]:
        """Return the ids of a text without special tokens, or of messages by the chat template."""
        model = await self.model_name()
        what = {"prompt": text} if isinstance(text, str) else {"messages": text}
        found = await self.get("/tokenize", {**what, "model": model, "add_special_tokens": False})
        return list(found["tokens"])

    async def model_name(self) -> str:
        """Return the name under which vLLM serves the model, for which it is asked once.

        Raises RequestError where it does not say.
        """
        if not self.served:
            answer, request = Answer(), as_request(self.scope, "/v1/models", b"", "GET")
            await self.app(request, replaying(b"", self.receive), answer)
            found = answer.json()
            if answer.status != 200 or not isinstance(found, dict) or not found.get("data"):
                error = found.get("error") if isinstance(found, dict) else None
                message = error.get("message") if isinstance(error, dict) else error
                raise RequestError(str(message or "vLLM names no model"), answer.status)
            self.served.append(str(found["data"][0]["id"]))
        return self.served[0]
