"""``/v1/completions`` and ``/v1/chat/completions``: texts, whole or as a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from foreword.errors import UserError
from foreword.serve.http.errors import ApiError, of_user_error
from foreword.serve.http.generation import EventStream, Generation, Said, while_there
from foreword.serve.http.logprobs import Offsets, joined, of_chat, of_given, of_text
from foreword.serve.http.reading import StrictRoute
from foreword.serve.http.ready import Ready
from foreword.serve.http.schemas import ChatBody, CompletionBody, TextBody
from foreword.serve.http.service import Service
from foreword.serve.http.tools import call_piece, tools_of, whole_calls

if TYPE_CHECKING:
    from foreword.serve.texts import TextRequest


def text_routes(service: Service) -> APIRouter:
    """Return the routes of a server that write texts."""
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/completions")
    async def completions(request: Request, body: CompletionBody) -> Response:
        """Continue a text, or several."""
        texts, most = body.prompts(), service.limits.inputs
        if len(texts) * (body.n or 1) > most:
            raise ApiError(
                400, f"prompt: at most {most} texts in a request, `n` times each", param="prompt"
            )
        settings = _settings(service, body, "max_tokens")
        if body.logprobs is not None:
            settings["logprobs"] = body.logprobs

        def lay_out(ready: Ready) -> tuple[str, list[TextRequest]]:
            name, prompt = ready.prompt(body.model)
            most = service.limits.tokens
            return name, [ready.texts.completion(prompt, t, settings, most) for t in texts]

        return await _answer(service, request, body, lay_out, len(texts), _AsText)

    @router.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatBody) -> Response:
        """Answer in a conversation."""
        named = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        settings = _settings(service, body, named)
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "`top_logprobs` needs `logprobs`: true", param="top_logprobs")
        if body.logprobs:
            settings["logprobs"] = body.top_logprobs or 0

        def lay_out(ready: Ready) -> tuple[str, list[TextRequest]]:
            name, prompt = ready.prompt(body.model)
            messages = [each.plain() for each in body.messages]
            most, tools = service.limits.tokens, tools_of(body)
            return name, [ready.texts.chat(prompt, messages, settings, most, tools)]

        return await _answer(service, request, body, lay_out, 1, _AsChat)

    return router


def _settings(service: Service, body: TextBody, named: str) -> dict[str, Any]:
    """Return the settings of a body; raises ApiError for more than the server allows."""
    limits, settings = service.limits, body.settings()
    if settings.get("max_new_tokens", 0) > limits.tokens:
        raise ApiError(400, f"{named}: this server writes at most {limits.tokens}", param=named)
    if (body.n or 1) > limits.choices:
        raise ApiError(400, f"n: this server gives at most {limits.choices} choices", param="n")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options: needs `stream`: true", param="stream_options")
    if body.temperature and body.seed is None:
        settings["seed"] = secrets.randbelow(2**63)
    return settings


async def _answer(
    service: Service,
    request: Request,
    body: TextBody,
    lay_out: Callable[[Ready], tuple[str, list[TextRequest]]],
    texts: int,
    form: type[_Form],
) -> Response:
    """Ask the engine for what a body asks, and return the answer or its stream."""
    ready = service.ready()
    made = Generation(service, ready, request)
    made.admit(texts * (body.n or 1))
    made.passage.about["model"] = body.model[:200]
    name, asked = await run_in_threadpool(lay_out, ready)
    made.passage.about["model"] = name
    await made.begin(asked, body.n or 1)
    written = form(name, ready, made.asked)
    if isinstance(body, CompletionBody) and body.echo:
        echoes = await _echoes(ready, made, body, asked)
        written.begin_with([echo for echo in echoes for _ in range(body.n or 1)])
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return EventStream(written.events(made, usage=usage))
    choices = await made.whole()
    return JSONResponse(
        {
            **written.head(form.kind),
            "choices": [written.choice(each) for each in choices],
            "usage": made.usage.plain(),
        }
    )


@dataclass(frozen=True)
class _Echo:
    """What an answer begins with: the text that it goes on from, and how likely that is."""

    text: str
    logprobs: dict[str, Any] | None = None


async def _echoes(
    ready: Ready, made: Generation, body: CompletionBody, asked: Sequence[TextRequest]
) -> list[_Echo]:
    """Return what is given back of each text; raises ApiError for one that is read otherwise."""
    text, found, cancelled = ready.backbone.text, list[_Echo](), Event()
    made.passage.undone.callback(cancelled.set)
    for given, row in zip(body.prompts(), asked, strict=True):
        said = given if isinstance(given, str) else text.decode(given)
        if body.logprobs is None:
            found.append(_Echo(said))
            continue
        if isinstance(given, str) and row.prompt is not None:
            raise ApiError(
                400,
                "`echo` beside `logprobs` needs `prompt` as token ids, or the model alone: a "
                "prompt's template puts more around a text",
                param="echo",
            )
        try:
            read = ready.engine.logprobs(row.ids, row.prompt, body.logprobs, cancelled=cancelled)
        except UserError as error:
            raise of_user_error(error) from None
        known = await while_there(made.request, made.in_time(asyncio.wrap_future(read)))
        found.append(_Echo(said, of_given(text, row.ids, known)))
    return found


class _Form:
    """How an answer is written: once for all of its pieces."""

    kind = part = prefix = ""

    def __init__(self, name: str, ready: Ready, asked: Sequence[TextRequest]) -> None:
        self.name, self.text = name, ready.backbone.text
        self.logprobs = asked[0].sampling.logprobs is not None
        self.id, self.created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())
        self.print = ready.backbone.fingerprint[:23]

    def begin_with(self, echoes: Sequence[_Echo]) -> None:
        """Let each choice begin with what it goes on from."""
        raise NotImplementedError

    def head(self, kind: str) -> dict[str, Any]:
        """Return what every object begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.name,
            "system_fingerprint": self.print,
        }

    def choice(self, said: Said) -> dict[str, Any]:
        """Return a whole choice."""
        raise NotImplementedError

    def piece(self, said: Said) -> dict[str, Any]:
        """Return a part of a choice."""
        raise NotImplementedError

    def first(self, choice: int) -> dict[str, Any] | None:
        """Return what a choice begins with, if anything."""
        return None

    async def events(self, made: Generation, *, usage: bool) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a stream."""
        more = {"usage": None} if usage else {}
        begun: set[int] = set()
        async for said in made.pieces():
            first = None if said.choice in begun else self.first(said.choice)
            begun.add(said.choice)
            for each in [*([] if first is None else [first]), self.piece(said)]:
                yield {**self.head(self.part), "choices": [each], **more}
        if usage:
            yield {**self.head(self.part), "choices": [], "usage": made.usage.plain()}


class _AsText(_Form):
    kind = part = "text_completion"
    prefix = "cmpl"

    def __init__(self, name: str, ready: Ready, asked: Sequence[TextRequest]) -> None:
        super().__init__(name, ready, asked)
        self.offsets = [Offsets(self.text, each.trimmed()) for each in asked]
        self.echoes: list[_Echo] = []  # what each choice begins with, if anything

    def begin_with(self, echoes: Sequence[_Echo]) -> None:
        self.echoes = list(echoes)
        for offsets, echo in zip(self.offsets, echoes, strict=True):
            offsets.begin = len(echo.text)

    def first(self, choice: int) -> dict[str, Any] | None:
        if not self.echoes:
            return None
        echo = self.echoes[choice]
        return {**self.piece(Said(choice, echo.text)), "logprobs": echo.logprobs}

    def choice(self, said: Said) -> dict[str, Any]:
        first, made = self.first(said.choice), self.piece(said)
        if first is None:
            return made
        made["text"] = first["text"] + made["text"]
        if made["logprobs"] is not None:
            made["logprobs"] = joined(first["logprobs"], made["logprobs"])
        return made

    def piece(self, said: Said) -> dict[str, Any]:
        offsets = self.offsets[said.choice]
        found = of_text(self.text, said.logprobs, offsets) if self.logprobs else None
        return {
            "text": said.text,
            "index": said.choice,
            "logprobs": found,
            "finish_reason": said.finish,
        }


class _AsChat(_Form):
    kind, part, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, said: Said) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
        if said.calls:
            message |= {"content": said.text or None, "tool_calls": whole_calls(said.calls)}
        return {"index": said.choice, "message": message, **self._more(said)}

    def piece(self, said: Said) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": said.text} if said.text else {}
        if said.calls:
            delta["tool_calls"] = [call_piece(each) for each in said.calls]
        return {"index": said.choice, "delta": delta, **self._more(said)}

    def first(self, choice: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}

    def _more(self, said: Said) -> dict[str, Any]:
        found = of_chat(self.text, said.logprobs) if self.logprobs else None
        return {"logprobs": found, "finish_reason": said.finish}
