"""The middleware: requests whose model is the name of a prompt are answered under that prompt."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foreword_vllm import bodies
from foreword_vllm.answers import Rewriter, Trimmed
from foreword_vllm.asked import Asked
from foreword_vllm.errors import PromptError, RequestError
from foreword_vllm.folder import PromptFolder
from foreword_vllm.inner import (
    Answer,
    App,
    Receive,
    Scope,
    Send,
    read_body,
    send_error,
    send_json,
)
from foreword_vllm.labels import probabilities, questions
from foreword_vllm.layout import check_window, field_of, row_ids
from foreword_vllm.prefix import Prefix
from foreword_vllm.served import check_model, check_probe

LARGEST = 64 * 2**20
"""Bytes of the largest request."""

INPUTS = 1024
"""Rows of one request."""

Handler = Callable[[Asked, Mapping[str, Any], str, Prefix], Awaitable[None]]


class Prompts:
    """An ASGI middleware for ``vllm serve --middleware foreword_vllm.middleware.Prompts``.

    The folder of prompts is that of the variable FOREWORD_PROMPTS. Servers that share a cache of
    prefixes need one FOREWORD_SALT.
    """

    def __init__(self, app: App, folder: Path | None = None) -> None:
        if folder is None:
            named = os.environ.get("FOREWORD_PROMPTS")
            if not named:
                raise RuntimeError("FOREWORD_PROMPTS is not set; it names the folder of prompts")
            folder = Path(named)
        self.app, self.secret = app, os.environ.get("FOREWORD_SALT") or secrets.token_hex(16)
        self.prompts = PromptFolder(folder)
        self.served: list[str] = []
        self.tried: dict[str, str] = {}  # by SHA-256: why the model is not that of a prompt, or ""
        self.handlers: dict[str, Handler] = {
            "/v1/completions": self._complete,
            "/v1/chat/completions": self._chat,
            "/v1/predict": self._predict,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a prompt; all others go to vLLM untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] == "GET" and path == "/v1/models":
            await self._models(scope, receive, send)
        elif scope["method"] == "POST" and path in self.handlers:
            body = await read_body(receive, LARGEST)
            if body is None:
                await send_error(send, 413, f"the request is larger than {LARGEST} bytes")
                return
            await self._post(path, Asked(self.app, scope, receive, send, body, self.served))
        else:
            await self.app(scope, receive, send)

    async def _post(self, path: str, asked: Asked) -> None:
        try:
            body = json.loads(asked.body)
        except (ValueError, RecursionError):
            body = None
        try:
            named = _name(body)
            prefix = None if named is None else await self._prefix(asked, named)
            if prefix is None and path == "/v1/predict":
                raise RequestError(f"there is no prompt '{str(named)[:100]}'", 404)
            if prefix is None:
                await asked.passed_on()
                return
            assert isinstance(body, dict)
            await self.handlers[path](asked, body, str(named), prefix)
        except RequestError as error:
            await asked.refuse(error)

    async def _prefix(self, asked: Asked, name: str) -> Prefix | None:
        """Return a prompt of the folder, None where there is none; raises PromptError."""
        prefix = await asyncio.to_thread(self.prompts.get, name)
        if prefix is None:
            return None
        if prefix.sha256 not in self.tried:
            self.tried[prefix.sha256] = check_model(asked.scope, prefix) or await check_probe(
                asked, prefix, self.secret
            )
        if why := self.tried[prefix.sha256]:
            raise PromptError(f"prompt '{name}' cannot be served: {why}")
        return prefix

    # What is asked -------------------------------------------------------------------------------

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """List the prompts behind vLLM's own models."""
        answer = Answer()
        await self.app(scope, receive, answer)
        found = answer.json()
        if answer.status == 200 and isinstance(found, dict) and found.get("data"):
            base = found["data"][0]
            names = await asyncio.to_thread(self.prompts.names)
            about = {"object": "model", "created": base.get("created", 0), "owned_by": "foreword"}
            found["data"] += [
                {"id": name, **about, "root": base["id"], "parent": base["id"]} for name in names
            ]
        await send_json(send, answer.status, found)

    async def _complete(
        self, asked: Asked, body: Mapping[str, Any], name: str, prefix: Prefix
    ) -> None:
        bodies.check(body)
        made = bodies.settings(prefix, body)
        rows = await self._rows(asked, prefix, body.get("prompt"))
        await self._written(asked, made, name, prefix, rows, chat=False)

    async def _chat(self, asked: Asked, body: Mapping[str, Any], name: str, prefix: Prefix) -> None:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RequestError("messages: give a list of messages")
        own = bodies.of_chat(body)
        bodies.check(own)
        made = bodies.settings(prefix, own)
        ids = await row_ids(_as_chat(prefix), {"messages": messages}, asked.tokenize)
        made["kv_transfer_params"] = body.get("kv_transfer_params")
        await self._written(asked, made, name, prefix, [ids], chat=True)

    async def _written(
        self,
        asked: Asked,
        made: Mapping[str, Any],
        name: str,
        prefix: Prefix,
        rows: list[list[int]],
        *,
        chat: bool,
    ) -> None:
        for ids in rows:
            check_window(prefix, ids, made["max_tokens"])
        extra, opening = prefix.positions * len(rows), prefix.answer["opening"]
        rewriter = Rewriter(name, extra, opening, chat=chat)
        served = await asked.model_name()
        await asked.rewritten(bodies.under(prefix, made, rows, served, self.secret), rewriter)

    async def _rows(self, asked: Asked, prefix: Prefix, given: Any) -> list[list[int]]:
        """Return the rows of a completion: texts in the one field, or ids as they are."""
        if isinstance(given, str) or _is_ids(given):
            given = [given]
        if not isinstance(given, list) or not 0 < len(given) <= INPUTS:
            raise RequestError(f"prompt: give a text, a list of up to {INPUTS}, or token ids")
        rows = []
        for each in given:
            if isinstance(each, str):
                rows.append(await row_ids(prefix, {field_of(prefix): each}, asked.tokenize))
            elif _is_ids(each):
                rows.append(each)
            else:
                raise RequestError("prompt: give texts, or lists of token ids")
        return rows

    async def _predict(
        self, asked: Asked, body: Mapping[str, Any], name: str, prefix: Prefix
    ) -> None:
        """Answer rows by the prompt's own task, as ``foreword predict --json`` does."""
        inputs = body.get("inputs")
        inputs = inputs if isinstance(inputs, list) else [inputs]
        if not 0 < len(inputs) <= INPUTS:
            raise RequestError(f"inputs: give 1 to {INPUTS}")
        least = body.get("min_probability")
        if least is not None and (isinstance(least, bool) or not isinstance(least, int | float)):
            raise RequestError("min_probability: give a number from 0 to 1")
        rows = []
        for each in inputs:
            if isinstance(each, str):
                each = {field_of(prefix): each}
            if not isinstance(each, dict):
                raise RequestError("inputs: give texts, or objects with the prompt's fields")
            rows.append(await row_ids(prefix, each, asked.tokenize))
        answer = self._labels if prefix.answer["kind"] == "labels" else self._texts
        made = {"object": "list", "model": name, "task": prefix.task}
        found = await answer(asked, prefix, rows)
        for each in found:
            if least is not None and each.get("probability", 1.0) < least:
                each["label"] = None
        await send_json(asked.send, 200, {**made, "predictions": found})

    async def _labels(
        self, asked: Asked, prefix: Prefix, rows: list[list[int]]
    ) -> list[dict[str, Any]]:
        """Score the tokens that spell label words, node by node of their tree."""
        served = await asked.model_name()
        scores: list[list[dict[int, float]]] = [[{} for _ in prefix.answer["nodes"]] for _ in rows]

        async def ask(question: Any) -> None:
            ids = [[*row, *question.path] for row in rows]
            for row in ids:
                check_window(prefix, row, 1)
            body = {"max_tokens": 1, "temperature": 0, **_scoring(question.tokens)}
            found = await asked.get(
                "/v1/completions", bodies.under(prefix, body, ids, served, self.secret)
            )
            for choice in found["choices"]:
                (tops,) = choice["logprobs"]["top_logprobs"]
                own = scores[choice["index"]][question.node]
                own |= {int(key.removeprefix("token_id:")): value for key, value in tops.items()}

        await asyncio.gather(*map(ask, questions(prefix.answer)))
        made = [probabilities(prefix.answer, own) for own in scores]
        return [_label(each) for each in made]

    async def _texts(
        self, asked: Asked, prefix: Prefix, rows: list[list[int]]
    ) -> list[dict[str, Any]]:
        """Write a text for each row, as the prompt was tuned to."""
        made = bodies.settings(prefix, {})
        for ids in rows:
            check_window(prefix, ids, made["max_tokens"])
        served = await asked.model_name()
        found = await asked.get(
            "/v1/completions", bodies.under(prefix, made, rows, served, self.secret)
        )
        texts = {each["index"]: each["text"] for each in found["choices"]}
        opening = prefix.answer["opening"]
        return [{"answer": Trimmed(opening).add(texts[n], last=True)} for n in range(len(rows))]


def _name(body: Any) -> str | None:
    """Return the name of the prompt that a request asks for; None where it names nothing.

    Raises RequestError for what names a prefix as only this middleware may.
    """
    if not isinstance(body, dict):
        return None
    transfer = body.get("kv_transfer_params")
    if isinstance(transfer, dict):
        if bodies.PARAMETER in transfer:
            raise RequestError(f"kv_transfer_params: '{bodies.PARAMETER}' is the server's own")
        if bodies.NAMED in transfer:
            return str(transfer[bodies.NAMED])
    model = body.get("model")
    return model if isinstance(model, str) else None


def _as_chat(prefix: Prefix) -> Prefix:
    """Return a prompt as it reads messages: by the chat template, whatever its own template is."""
    if prefix.row["fields"] == ["messages"]:
        return prefix
    return replace(prefix, row={**prefix.row, "fields": ["messages"], "begins": False})


def _scoring(tokens: tuple[int, ...]) -> dict[str, Any]:
    """Return what asks vLLM for the scores of some tokens."""
    asked = {"logprob_token_ids": list(tokens), "logprobs": len(tokens)}
    return {**asked, "return_tokens_as_token_ids": True}


def _label(chances: Mapping[str, float]) -> dict[str, Any]:
    """Return the likeliest label, its probability, and all of them."""
    rounded = {name: round(each, 6) for name, each in chances.items()}
    best = max(chances, key=chances.__getitem__)
    return {"label": best, "probability": rounded[best], "probabilities": rounded}


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
