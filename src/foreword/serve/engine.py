"""The engine: requests of many prompts, and of none, answered on one model by one thread."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.backbone.json_rule import JsonSchema
from foreword.data.row import Row
from foreword.data.rows import Rows, as_rows
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.prompt.answerer import Answerer
from foreword.prompt.familiar import states_of_answers
from foreword.prompt.prompt import Prompt
from foreword.prompt.tensors import check_fit
from foreword.serve.answers import answers
from foreword.serve.check import check_row
from foreword.serve.given import logprobs_of
from foreword.serve.held import HeldPrompts
from foreword.serve.loop import Loop
from foreword.serve.request import Grammar, Piece, Request, Sampling, Ticket, TokenLogprob
from foreword.serve.states import Reading, ReadingBackbone
from foreword.serve.whole import WholeLoop, check_beams
from foreword.tasks.registry import name_of
from foreword.tasks.texts.generator import Generator
from foreword.threads import end_idle_threads

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
        chunk: int = 512,
        tokens: int = 2**15,
        memory: int = 2**30,
    ) -> None:
        if backbone.can_generate:
            backbone.check_runs()
        _ = backbone.fingerprint, backbone.can_pad  # before other threads ask
        packed = backbone.can_generate and not backbone.has_two_stacks
        packed = packed and backbone.can_pack and backbone.can_prefill
        self.backbone = backbone
        self._prompts = HeldPrompts(backbone, memory)
        self._rows = Loop(backbone, self._prompts, slots, chunk, tokens) if packed else None
        self._whole = WholeLoop(backbone, slots)
        self._inbox: list[Request | Reading | Callable[[], None]] = []
        self._wake = threading.Condition()
        self._open, self._closing, self._ended = True, False, False
        self._requests = 0
        self._pool = ThreadPoolExecutor(slots, "foreword-answer")
        self._thread = threading.Thread(target=self._loop, name="foreword-engine", daemon=True)
        end_idle_threads()
        self._thread.start()

    # Asking ------------------------------------------------------------------------------------

    def generate(
        self,
        ids: Sequence[int],
        prompt: Prompt | Injection | None = None,
        sampling: Sampling = DEFAULT,
        on_piece: Callable[[Piece], None] | None = None,
        *,
        grammar: Grammar | None = None,
    ) -> Ticket:
        """Continue a row of token ids behind a prompt; return at once.

        ``on_piece`` hears what is written as it is written, in the engine's thread, and must not
        wait; where it raises, the request is cancelled. :meth:`lay_out` makes the ids of a row of
        the prompt's own task.

        Raises UserError for a row that has no tokens, unknown ones, or more than the model has
        room for, for settings out of range, and for a model that does not continue text.
        """
        self._check_open()
        if isinstance(ids, str):
            raise UserError("a row is token ids, not a text; give `model.text.ids(text)`")
        numbers = [int(each) for each in ids]  # of numpy and torch too
        return self._begin(numbers, _injection(prompt), sampling, on_piece, grammar)

    def _begin(
        self,
        ids: Sequence[int],
        injection: Injection,
        sampling: Sampling,
        on_piece: Callable[[Piece], None] | None = None,
        grammar: Grammar | None = None,
        cancelled: Event | None = None,
    ) -> Ticket:
        check_row(self.backbone, ids, injection, sampling)
        ticket, since = Ticket(cancelled), time.monotonic()
        request = Request(tuple(ids), injection, sampling, on_piece, grammar, ticket, since)
        if sampling.beams > 1:
            check_beams(request)
        elif sampling.json_schema is not None and grammar is None:
            text, ends = self.backbone.text, self.backbone.ends
            request.grammar = JsonSchema(sampling.json_schema, text.tokenizer, ends).begin()
        self._submit(request)
        self._requests += 1
        return ticket

    def answer(
        self,
        prompt: Answerer,
        rows: Rows,
        *,
        progress: Callable[[int], None] | None = None,
        cancelled: Event | None = None,
    ) -> Future[list[dict[str, Any]]]:
        """Answer rows by the prompt's own task, one object each, as ``prompt.answers`` does.

        ``rows`` are dicts, a DataFrame, or whatever else holds rows. Once ``cancelled`` is set, the
        engine gives up what it has still to read and to write for them; the answers are of no use
        then.
        """
        self._check_open()
        if not (isinstance(rows, list) and all(isinstance(row, Row) for row in rows)):
            rows = as_rows(rows, targets=False, name="input")
        cancelled = cancelled or Event()
        reading = ReadingBackbone(self.backbone, self._submit, cancelled)
        begin = partial(self._begin, cancelled=cancelled)
        return self._pool.submit(answers, reading, begin, prompt, rows, progress)

    def logprobs(
        self,
        ids: Sequence[int],
        prompt: Prompt | Injection | None = None,
        count: int = 0,
        *,
        cancelled: Event | None = None,
    ) -> Future[tuple[TokenLogprob, ...]]:
        """Return the log-probability of each token of a row but the first, behind a prompt.

        Each comes with the ``count`` likeliest tokens in its place. Once ``cancelled`` is set, it
        is given up. Raises UserError for a row as :meth:`generate` does, and for a model that reads
        and writes in two stacks.
        """
        self._check_open()
        injection = _injection(prompt)
        check_row(self.backbone, ids, injection, replace(DEFAULT, max_new_tokens=1, logprobs=count))
        if self.backbone.has_two_stacks:
            raise UserError(f"{self.backbone.name} writes no row that it reads; use a causal model")
        reading = ReadingBackbone(self.backbone, self._submit, cancelled or Event())
        return self._pool.submit(logprobs_of, reading, injection, ids, count)

    def states(self, prompt: Prompt, rows: Sequence[Row]) -> Future[Tensor | None]:
        """Return the state at each row's answer, (rows, width); None where it is no label."""
        self._check_open()
        reading = ReadingBackbone(self.backbone, self._submit, Event())
        bound = prompt.bound.changed(backbone=reading)
        return self._pool.submit(states_of_answers, bound, list(rows), prompt.injection)

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
        """Load a prompt as keys and values, once, so that its first request need not wait.

        Raises UserError for one that does not fit the model.
        """
        injection = _injection(prompt)
        check_fit("the prompt", injection, self.backbone)
        self._do(lambda: self._prompts.hold(injection))

    def release(self, prompt: Prompt | Injection, *, wait: bool = True) -> None:
        """Forget a prompt's keys and values; requests in flight finish on them.

        Those that come later load them for themselves, until :meth:`hold` holds them again. With
        ``wait`` False it returns before a step that is under way is done.
        """
        forget = partial(self._prompts.forget, _injection(prompt))
        if wait:
            self._do(forget)
        else:
            self._submit(forget)

    def warm(self) -> None:
        """Take the memory of all slots now, and not as rows come."""
        if self._rows is not None:
            self._do(self._rows.pool.touch)

    def _do(self, work: Callable[[], object]) -> None:
        """Let the engine's thread do something between steps, and wait for it."""
        if threading.current_thread() is self._thread:  # who listens to a piece asks
            work()
            return
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except Exception as error:  # is raised where it was asked for
                done.set_exception(error)
            else:
                done.set_result(None)

        self._submit(run)
        done.result()

    @property
    def busy(self) -> bool:
        """Whether anything was asked that is not answered yet."""
        return self._busy

    # The engine itself -------------------------------------------------------------------------

    def stats(self) -> Mapping[str, float]:
        """Return counts since the start and what is under way now, as plain numbers."""
        rows, prompts = self._rows, self._prompts
        counts = Counter(self._whole.counts)
        counts.update({} if rows is None else rows.counts)
        waiting = len(self._inbox) + self._whole.waiting
        return {
            **counts,
            "requests": self._requests,
            "waiting": waiting + (0 if rows is None else len(rows.waiting)),
            "running": 0 if rows is None else len(rows.running),
            "slot_tokens": 0 if rows is None else rows.pool.used,
            "prompts": len(prompts),
            "prompt_bytes": prompts.size,
            "prompt_hits": prompts.hits,
            "prompt_misses": prompts.misses,
        }

    def close(self, drain: bool = True) -> None:
        """Take no more requests; return when all are finished, or without ``drain`` ended."""
        self._open = False
        if not drain and self._thread.is_alive():
            self._submit(self._cancel_all)
        self._pool.shutdown(cancel_futures=not drain)
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _check_open(self) -> None:
        if not self._open:
            raise UserError("the engine is closed")

    def _cancel_all(self) -> None:
        error = UserError("the engine is closed")
        self._whole.end_all(error)
        if self._rows is not None:
            self._rows.end_all(error)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(drain=error[0] is None)

    # The loop ----------------------------------------------------------------------------------

    def _submit(self, asked: Request | Reading | Callable[[], None]) -> None:
        with self._wake:
            if self._ended or not self._thread.is_alive():
                raise UserError("the engine is closed")
            self._inbox.append(asked)
            self._wake.notify()

    @property
    def _busy(self) -> bool:
        waiting = bool(self._whole.waiting or self._inbox)
        return waiting or (self._rows is not None and self._rows.busy)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._busy and not self._closing:
                    self._wake.wait()
                if not self._busy:
                    self._ended = True
                    return
                arrived, self._inbox = self._inbox, []
            for each in arrived:
                self._take(each)
            self._step()
            self._whole.step()

    def _step(self) -> None:
        if self._rows is None or not self._rows.busy:
            return
        try:
            self._rows.step()
        except Exception as error:  # no request's own, so all of them are told
            self._rows.end_all(error)

    def _take(self, asked: Request | Reading | Callable[[], None]) -> None:
        if not isinstance(asked, Request | Reading):
            asked()
        elif self._rows is None or (isinstance(asked, Request) and asked.sampling.beams > 1):
            self._whole.take(asked)
        else:
            self._rows.waiting.append(asked)


def _injection(prompt: Prompt | Injection | None) -> Injection:
    if prompt is None:
        return NOTHING
    return prompt if isinstance(prompt, Injection) else prompt.injection
