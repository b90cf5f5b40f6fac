"""The engine: requests of many prompts, and of none, answered on one model by one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.prompt.answerer import Answerer
from foreword.prompt.prompt import Prompt
from foreword.serve.request import Grammar, Piece, Request, Sampling, Ticket
from foreword.serve.whole import alike, check_whole, decode_whole
from foreword.tasks.registry import name_of
from foreword.tasks.texts.generator import Generator

DEFAULT = Sampling()


class Engine:
    """Answers requests under many prompts on one backbone, as they come.

    Every method may be called from any thread; one thread of its own runs the model. ``slots`` is
    how many rows are decoded at once, ``chunk`` how many tokens one pass has before rows that are
    still read wait for the next, and ``memory`` how many bytes of prompts are kept as keys and
    values, of which those used last stay.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        slots: int = 128,
        chunk: int = 256,
        memory: int = 2**30,
    ) -> None:
        self.backbone = backbone
        self.slots, self.chunk, self.memory = slots, chunk, memory
        self._wake = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._closing = False
        self._pool = ThreadPoolExecutor(slots, "foreword-answer")
        self._counts = dict.fromkeys(("requests", "finished", "tokens_read", "tokens_written"), 0)
        self._thread = threading.Thread(target=self._loop, name="foreword-engine", daemon=True)
        self._thread.start()

    # Asking ------------------------------------------------------------------------------------

    def generate(
        self,
        ids: Sequence[int],
        prompt: Prompt | Injection | None = None,
        sampling: Sampling = DEFAULT,
        on_piece: Callable[[Piece], None] = lambda piece: None,
        *,
        grammar: Grammar | None = None,
    ) -> Ticket:
        """Continue a row of token ids behind a prompt; return at once.

        ``on_piece`` hears what is written as it is written, in the engine's thread, and must not
        wait. :meth:`lay_out` makes the ids of a row of the prompt's own task.

        Raises UserError for a row that has no tokens, unknown ones, or more than the model has
        room for, for settings out of range, and for a model that does not continue text.
        """
        injection = _injection(prompt)
        self._check(ids, injection, sampling)
        since = time.monotonic()
        request = Request(tuple(ids), injection, sampling, on_piece, grammar, Ticket(), since)
        check_whole(request)
        with self._wake:
            if self._closing:
                raise UserError("the engine is closed")
            self._waiting.append(request)
            self._counts["requests"] += 1
            self._wake.notify()
        return request.ticket

    def answer(
        self,
        prompt: Answerer,
        rows: Sequence[Row],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Future[list[dict[str, Any]]]:
        """Answer rows by the prompt's own task, one object each, as ``prompt.answers`` does."""
        return self._pool.submit(prompt.answers, list(rows), progress=progress)

    def lay_out(self, prompt: Prompt, row: Row) -> tuple[int, ...]:
        """Return the token ids of a row of a task that writes texts, for :meth:`generate`.

        Raises UserError for a row that lacks a field, and for a task that writes no text.
        """
        bound = prompt.bound
        if not isinstance(bound, Generator):
            raise UserError(f"a task of kind {name_of(prompt.task)} writes no text; use `answer`")
        (example,), _ = bound.lay_out([row], prompt.injection)
        return example.ids

    # Prompts -----------------------------------------------------------------------------------

    def hold(self, prompt: Prompt | Injection) -> None:
        """Load a prompt as keys and values, once, so that its first request need not wait."""

    def release(self, prompt: Prompt | Injection) -> None:
        """Forget a prompt's keys and values; requests in flight finish on them."""

    # The engine itself -------------------------------------------------------------------------

    def stats(self) -> Mapping[str, float]:
        """Return counts since the start and what is under way now, as plain numbers."""
        with self._wake:
            return {**self._counts, "waiting": len(self._waiting), "running": 0}

    def close(self, drain: bool = True) -> None:
        """Take no more requests; return when all are finished, or without ``drain`` ended."""
        with self._wake:
            self._closing = True
            if not drain:
                for request in self._waiting:
                    request.ticket.cancel()
            self._wake.notify()
        self._thread.join()
        self._pool.shutdown(wait=drain, cancel_futures=not drain)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(drain=error[0] is None)

    def _check(self, ids: Sequence[int], injection: Injection, sampling: Sampling) -> None:
        sampling.check()
        if not self.backbone.can_generate:
            raise UserError(f"{self.backbone.name} predicts no next token; use a causal model")
        if not ids:
            raise UserError("the row has no tokens; give one or more")
        most = self.backbone.vocabulary + (0 if injection.embeds is None else len(injection.embeds))
        for token in (min(ids), max(ids)):
            if not 0 <= token < most:
                raise UserError(f"the row has the token {token}; ids go from 0 to {most - 1}")
        room = self.backbone.longest - injection.positions - injection.leading
        if len(ids) + sampling.max_new_tokens > room:
            raise UserError(
                f"a row of {len(ids)} tokens and {sampling.max_new_tokens} new ones "
                f"(`max_new_tokens`) is longer than the {room} that the model has room for; "
                "shorten one of them"
            )

    # The loop ----------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                group = alike(list(self._waiting)[: self.slots])
                for request in group:
                    self._waiting.remove(request)
            try:
                decode_whole(self.backbone, group)
            except Exception as error:  # the engine lives on, whatever a request brings
                for request in group:
                    request.fail(error)
            with self._wake:
                self._counts["finished"] += len(group)


def _injection(prompt: Prompt | Injection | None) -> Injection:
    if prompt is None:
        return NOTHING
    return prompt if isinstance(prompt, Injection) else prompt.injection
