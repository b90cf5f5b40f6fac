"""A stand-in for vLLM behind the middleware: it answers by rules, and keeps what it hears."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from foreword_vllm.inner import Receive, Scope, Send, read_body, send_json

BOS = 1


class FakeVLLM:
    """Words are tokens: each letter's number. Token t is scored ``-t``, or ``probe`` for the probe.

    ``heard`` are the bodies of completions. A text is `` text of N tokens``.
    """

    def __init__(self, config: Any = None, probe: float = -1.0, key: bytes = b"") -> None:
        self.heard: list[dict[str, Any]] = []
        self.state = SimpleNamespace(vllm_config=config)
        self.probe, self.key = probe, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("app", self)
        body = json.loads(await read_body(receive, 2**20) or b"{}")
        path = scope["path"]
        if self.key and (b"authorization", self.key) not in scope["headers"]:
            await send_json(send, 401, {"error": {"message": "no key"}})
        elif path == "/v1/models":
            await send_json(send, 200, {"object": "list", "data": [{"id": "base", "created": 5}]})
        elif path == "/tokenize":
            await send_json(send, 200, {"tokens": tokens(body)})
        elif body.get("model") != "base":
            await send_json(send, 404, {"error": {"message": f"no {body.get('model')}"}})
        else:
            self.heard.append(body)
            await self._complete(body, send)

    async def _complete(self, body: dict[str, Any], send: Send) -> None:
        rows = body["prompt"]
        choices: list[dict[str, Any]] = []
        for index, ids in enumerate(rows):
            choice = {
                "index": index,
                "text": f" text of {len(ids)} tokens ",
                "finish_reason": "stop",
            }
            if asked := body.get("logprob_token_ids"):
                tops = {f"token_id:{t}": self.probe if len(asked) == 1 else -t for t in asked}
                choice["logprobs"] = {"top_logprobs": [tops]}
            choices.append(choice)
        size = sum(map(len, rows))
        usage = {"prompt_tokens": size, "completion_tokens": 4, "total_tokens": size + 4}
        about = {"id": "cmpl-1", "object": "text_completion", "model": "base", "usage": usage}
        if not body.get("stream"):
            await send_json(send, 200, {**about, "choices": choices})
            return
        kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        whole = b""
        for piece, end in ((" a ", None), ("te", None), ("xt ", "stop")):
            part = [{"index": 0, "text": piece, "finish_reason": end}]
            whole += b"data: " + json.dumps({**about, "choices": part}).encode() + b"\n\n"
        whole += b"data: [DONE]\n\n"
        for start in range(0, len(whole), 37):  # cut anywhere
            part = whole[start : start + 37]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def tokens(body: dict[str, Any]) -> list[int]:
    """The ids of a text, or of messages, which begin with BOS."""
    if "messages" in body:
        return [BOS, *(len(turn["content"]) for turn in body["messages"])]
    return [ord(sign) % 100 + 2 for sign in body["prompt"]]
