"""Completions between the engine's thread and the server's loop: whole, or piece by piece."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from foreword.errors import UserError
from foreword.serve.http.errors import ApiError, not_ready, of_user_error
from foreword.serve.http.guard import passage
from foreword.serve.http.ready import Ready
from foreword.serve.http.service import Service

if TYPE_CHECKING:
    from foreword.serve.request import Finish, Piece, Ticket, TokenLogprob
    from foreword.serve.texts import TextRequest
    from foreword.serve.tool_reader import CallPiece

T = TypeVar("T")

REASONS: dict[Finish, str] = {"stop": "stop", "length": "length", "cancelled": "length"}
"""OpenAI's words for the end of a completion; one that ran out of time was cut off."""

TOO_LONG = "the request waited too long; try again later", "timeout"

GRACE = 1.0
"""Seconds in which the engine tells what it holds back of completions that ran out of time."""


@dataclass(frozen=True)
class Said:
    """A piece of one choice, as a client is given it."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None
    calls: tuple[CallPiece, ...] = ()


@dataclass
class Usage:
    """Tokens of all choices of a request."""

    read: int
    written: int = 0

    def plain(self) -> dict[str, int]:
        """Return it as OpenAI's API writes it."""
        return {
            "prompt_tokens": self.read,
            "completion_tokens": self.written,
            "total_tokens": self.read + self.written,
        }


class Generation:
    """The choices of one request: begun in the engine, heard in the server's loop.

    They end when they are finished, when time is over, and with their request, whatever ends it.
    """

    def __init__(self, service: Service, ready: Ready, request: Request) -> None:
        self.service, self.ready, self.request = service, ready, request
        self.passage = passage(request.scope)
        self.deadline = self.passage.since + service.limits.seconds
        self.loop = asyncio.get_running_loop()
        self.heard: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self.asked: list[TextRequest] = []
        self.tickets: list[Ticket] = []
        self.usage = Usage(0)

    def admit(self, count: int) -> None:
        """Count the choices among those that are answered; raises ApiError where there are many."""
        self.passage.undone.enter_context(self.service.admitted(count))

    async def begin(self, asked: Sequence[TextRequest], n: int) -> None:
        """Ask the engine for ``n`` completions of each; raises ApiError for what it refuses.

        Those of texts that read alike are drawn apart; the first by the seed as it is given.
        """
        from foreword.backbone.decoding_rules import row_seed

        self.usage.read = sum(len(each.ids) for each in asked)
        begun: Counter[tuple[int, ...]] = Counter()
        for each in asked:
            for _ in range(n):
                seed = each.sampling.seed
                if number := begun[each.ids]:
                    seed = row_seed(seed, (number,))
                begun[each.ids] += 1
                self.asked.append(replace(each, sampling=replace(each.sampling, seed=seed)))
        await run_in_threadpool(self._begin)
        self.service.metrics.tokens.labels("read").inc(self.usage.read)

    def _begin(self) -> None:
        for number, each in enumerate(self.asked):
            try:
                ticket = self.ready.engine.generate(
                    each.ids,
                    each.prompt,
                    each.sampling,
                    partial(self._hear, number),
                    grammar=None if each.rule is None else each.rule.begin(),
                )
            except UserError as error:
                raise of_user_error(error) from None
            self.tickets.append(ticket)
            self.passage.undone.callback(ticket.cancel)

    def _hear(self, choice: int, piece: Piece) -> None:
        """Hear a piece, in the engine's thread."""
        self.loop.call_soon_threadsafe(self.heard.put_nowait, (choice, piece))

    async def pieces(self) -> AsyncIterator[Said]:
        """Yield what is written, as it is written; raises ApiError where that fails."""
        trimmed = [each.trimmed() for each in self.asked]
        readers = [None if each.rule is None else each.rule.reader() for each in self.asked]
        left = set(range(len(self.asked)))
        began = ended = 0.0
        deadline = self.deadline
        while left:
            seconds = deadline - time.monotonic()
            try:
                choice, piece = await asyncio.wait_for(self.heard.get(), max(0.0, seconds))
            except TimeoutError:
                for ticket in self.tickets:
                    ticket.cancel()
                if not began:
                    raise not_ready(*TOO_LONG) from None
                if deadline == self.deadline:
                    deadline += GRACE
                    continue
                for each in sorted(left):
                    yield Said(each, trimmed[each].add("", last=True), finish="length")
                break
            if piece.finish == "error":
                raise self._failure(choice)
            ended = time.monotonic()
            if not began:
                began = ended
                self.service.metrics.first.observe(began - self.passage.since)
            self.usage.written += len(piece.tokens)
            last = piece.finish is not None
            text, calls, reader = piece.text, list["CallPiece"](), readers[choice]
            finish = None if piece.finish is None else REASONS[piece.finish]
            if reader is not None:
                text, calls = reader.add(text, last=last)
                finish = "tool_calls" if finish == "stop" and reader.calls else finish
            text = trimmed[choice].add(text, last=last)
            if text or calls or piece.logprobs or last:
                yield Said(choice, text, piece.logprobs, finish, tuple(calls))
            if last:
                left.discard(choice)
        self._note(began, ended)

    async def in_time(self, work: Awaitable[T]) -> T:
        """Wait for something else of the request; raises ApiError once its time is over."""
        try:
            return await asyncio.wait_for(work, max(0.0, self.deadline - time.monotonic()))
        except TimeoutError:
            raise not_ready(*TOO_LONG) from None

    def _note(self, began: float, ended: float) -> None:
        written, metrics = self.usage.written, self.service.metrics
        metrics.tokens.labels("written").inc(written)
        if written > len(self.asked):
            each = (written - len(self.asked)) / len(self.asked)  # choice's tokens
            metrics.each.observe((ended - began) / each)
        self.passage.about |= {"read": self.usage.read, "written": written}

    def _failure(self, choice: int) -> ApiError:
        """Return why the engine could not finish a choice."""
        try:
            self.tickets[choice].result(0)
        except UserError as error:
            return of_user_error(error)
        except Exception as error:  # a fault of the engine, whatever it is
            self.passage.about["error"] = type(error).__name__
        return ApiError(500, "the server has a fault")

    async def whole(self) -> list[Said]:
        """Return all choices once they are finished; one whose client has left is cancelled."""
        made = [Said(number, "") for number in range(len(self.asked))]

        async def gathered() -> None:
            async for said in self.pieces():
                own = made[said.choice]
                made[said.choice] = replace(
                    own,
                    text=own.text + said.text,
                    logprobs=(*own.logprobs, *said.logprobs),
                    finish=said.finish,
                    calls=(*own.calls, *said.calls),
                )

        await while_there(self.request, gathered())
        return made


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer for as long as the client does; raises ApiError, 499, once it has left."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    both: set[asyncio.Task[Any]] = {task, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "the client has left")
    finally:
        for each in both:
            each.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events, as OpenAI's API streams them: a JSON object each, and [DONE]."""

    def __init__(self, events: AsyncIterator[dict[str, Any]]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_written(events), media_type="text/event-stream", headers=headers)


async def _written(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    from pydantic_core import to_json

    try:
        async for event in events:
            yield f"data: {to_json(event).decode()}\n\n"
    except ApiError as error:
        yield f"data: {to_json(error.body()).decode()}\n\n"
        return
    yield "data: [DONE]\n\n"
