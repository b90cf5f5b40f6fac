"""What vLLM answers, as the prompt's own: its name, its usage, its text without spaces around."""

from __future__ import annotations

import json
from typing import Any

from foreword_vllm.inner import Message, Send


class Trimmed:
    """A text without the spaces around it and the empty thoughts before it, piece by piece."""

    def __init__(self, opening: str) -> None:
        self.opening, self.held, self.begun = opening, "", False

    def add(self, text: str, *, last: bool = False) -> str:
        """Return what can be given out after ``text``; all that is left with the ``last``."""
        self.held += text
        if not self.begun:
            start = self.held.lstrip()
            if not last and (not start or self.opening.startswith(start)):
                return ""
            self.held = start.removeprefix(self.opening).lstrip()
            if not self.held:
                return ""
            self.begun = True
        given = self.held.rstrip()
        self.held = self.held[len(given) :]
        return given


class Rewriter:
    """Rewrites answers of ``/v1/completions`` for the client of a prompt.

    ``extra`` positions of ``rows`` prompts are no tokens of the client's. With ``chat`` they become
    answers of ``/v1/chat/completions``.
    """

    def __init__(self, name: str, extra: int, opening: str, *, chat: bool) -> None:
        self.name, self.extra, self.opening, self.chat = name, extra, opening, chat
        self.texts: dict[int, Trimmed] = {}
        self.begun: set[int] = set()

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return an answer that came at once."""
        for choice in value.get("choices", ()):
            choice["text"] = Trimmed(self.opening).add(choice.get("text") or "", last=True)
            if self.chat:
                message = {"role": "assistant", "content": choice.pop("text")}
                choice["message"] = message
                choice["logprobs"] = None
        return self._about(value, "chat.completion")

    def chunk(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a part of an answer that comes as a stream."""
        for choice in value.get("choices", ()):
            index = choice["index"]
            last = choice.get("finish_reason") is not None
            text = self.texts.setdefault(index, Trimmed(self.opening)).add(
                choice.get("text") or "", last=last
            )
            if not self.chat:
                choice["text"] = text
                continue
            del choice["text"]
            choice["logprobs"] = None
            choice["delta"] = {"content": text}
            if index not in self.begun:
                self.begun.add(index)
                choice["delta"]["role"] = "assistant"
        return self._about(value, "chat.completion.chunk")

    def _about(self, value: dict[str, Any], kind: str) -> dict[str, Any]:
        if "model" in value:
            value["model"] = self.name
        if self.chat and "choices" in value:
            value["object"] = kind
            value["id"] = f"chat{value.get('id', '')}"
        if usage := value.get("usage"):
            for name in ("prompt_tokens", "total_tokens"):
                usage[name] = max(0, usage[name] - self.extra)
        value.pop("kv_transfer_params", None)
        return value


class Rewritten:
    """Sends an answer on, rewritten: at once, or line by line where it is a stream of events."""

    def __init__(self, send: Send, rewriter: Rewriter) -> None:
        self.send, self.rewriter = send, rewriter
        self.start: Message = {}
        self.held = b""
        self.streams = False

    async def __call__(self, message: Message) -> None:
        """Send a message on, once all is there that is needed to rewrite it."""
        if message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            kinds = [value for name, value in headers if name == b"content-type"]
            self.streams = any(kind.startswith(b"text/event-stream") for kind in kinds)
            self.start = {**message, "headers": headers}
            if self.streams:
                await self.send(self.start)
            return
        if message["type"] != "http.response.body":
            await self.send(message)
            return
        self.held += message.get("body", b"")
        more = message.get("more_body", False)
        if self.streams:
            lines = self.held.split(b"\n")
            self.held = lines.pop() if more else b""
            body = b"".join(self._line(line) + b"\n" for line in lines)
            await self.send({**message, "body": body})
        elif not more:
            body = self._whole(self.held)
            size = (b"content-length", str(len(body)).encode())
            await self.send({**self.start, "headers": [*self.start["headers"], size]})
            await self.send({**message, "body": body})

    def _whole(self, body: bytes) -> bytes:
        if self.start["status"] != 200:
            return body
        return json.dumps(self.rewriter.whole(json.loads(body)), ensure_ascii=False).encode()

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data: {"):
            return line
        made = self.rewriter.chunk(json.loads(line[len(b"data: ") :]))
        return b"data: " + json.dumps(made, ensure_ascii=False).encode()
