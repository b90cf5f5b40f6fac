"""A request: how its tokens are chosen, what it hears of them, and the ticket for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock
from typing import Literal, Protocol

from torch import Tensor

from foreword.backbone.decode import Decoding
from foreword.errors import UserError
from foreword.injection import Injection

Finish = Literal["stop", "length", "cancelled", "error"]
"""Why a completion ended: a token or text that ends it, its length, its client, or a fault."""


@dataclass(frozen=True)
class Sampling(Decoding):
    """How the tokens of one request are chosen, and how many likely ones are told.

    ``logprobs`` None tells none; with a number each token comes with its log-probability, and with
    those of so many of the likeliest. They are the model's own, before temperature and penalties.
    ``logit_bias`` is added to the scores of tokens. ``presence_penalty`` is taken from those of
    tokens that the completion has, ``frequency_penalty`` as often as it has them.
    """

    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def shifts(self) -> bool:
        """Whether scores are changed by a bias, or for what was written."""
        return bool(self.logit_bias or self.presence_penalty or self.frequency_penalty)

    def check(self) -> None:
        """Raise UserError for values out of range."""
        super().check()
        if self.logprobs is not None and not 0 <= self.logprobs <= 20:
            raise UserError(f"logprobs is {self.logprobs}; it must be from 0 to 20")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise UserError(f"{name} is {getattr(self, name)}; it must be from -2 to 2")
        if not all(-100 <= bias <= 100 for _, bias in self.logit_bias):
            raise UserError("logit_bias holds a bias that is not from -100 to 100")


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was written, its log-probability, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What has been written since the piece before: whole characters, and the tokens behind them.

    Text that may be the beginning of a stop text, or of a character, comes with a later piece. The
    last piece says why the completion is finished; a token that ends it is not among ``tokens``.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True)
class Completion:
    """A whole completion. ``read`` counts the tokens of the row, ``seconds`` up to its first one.

    ``tokens`` are those of the text, and of a stop text that was cut off.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish: Finish
    read: int = 0
    seconds: float = 0.0


class Grammar(Protocol):
    """Which tokens may come next in one completion; it is asked and told token by token."""

    def allow(self, scores: Tensor) -> Tensor:
        """Return scores (vocabulary,) in which tokens that may not come next are -inf."""

    def accept(self, token: int) -> bool:
        """Go on with a token; return whether the completion is finished."""


class Ticket:
    """A request that is under way. All methods may be called from any thread.

    Requests with one ``cancelled`` are cancelled together.
    """

    def __init__(self, cancelled: Event | None = None) -> None:
        self._done = Event()
        self._lock = Lock()
        self._cancelled = cancelled or Event()
        self._completion: Completion | None = None
        self._error: BaseException | None = None
        self._listeners: list[Callable[[Ticket], None]] = []

    def cancel(self) -> None:
        """End the request at the next step; it finishes as "cancelled" unless it is done before."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end."""
        return self._cancelled.is_set()

    @property
    def done(self) -> bool:
        """Whether it is finished, well or not."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> Completion:
        """Wait for the completion.

        Raises what went wrong with this request, and TimeoutError after ``timeout`` seconds.
        """
        if not self._done.wait(timeout):
            raise TimeoutError("the completion is not finished")
        if self._error is not None:
            raise self._error
        assert self._completion is not None
        return self._completion

    def when_done(self, listener: Callable[[Ticket], None]) -> None:
        """Call ``listener`` with the ticket once it is done, at once if it is."""
        with self._lock:
            if not self._done.is_set():
                self._listeners.append(listener)
                return
        listener(self)

    def finish(self, completion: Completion | None, error: BaseException | None = None) -> None:
        """Keep the completion, or what went wrong; the engine calls it once."""
        with self._lock:
            self._completion, self._error = completion, error
            self._done.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            with suppress(Exception):  # of any kind: it is another's code
                listener(self)


@dataclass(eq=False)
class Request:
    """A row to continue, as the engine keeps it: what was asked, and who hears of the answer."""

    ids: tuple[int, ...]
    injection: Injection
    sampling: Sampling
    hear: Callable[[Piece], None] | None
    grammar: Grammar | None
    ticket: Ticket
    since: float  # time.monotonic() of its arrival

    def end(self, completion: Completion) -> None:
        """Give out a completion whole."""
        made = completion
        self.tell(Piece(made.text, made.tokens, made.logprobs, made.finish))
        self.ticket.finish(made)

    @property
    def over(self) -> bool:
        """Whether it is finished, well or not."""
        return self.ticket.done

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self.ticket.cancelled

    def drop(self) -> None:
        """End it, cancelled before anything was written."""
        self.end(Completion("", (), (), "cancelled", len(self.ids)))

    def fail(self, error: BaseException) -> None:
        """Tell that it went wrong; the others go on."""
        self.ticket.finish(None, error)  # first: who hears of it asks the ticket why
        self.tell(Piece("", finish="error"))

    def tell(self, piece: Piece) -> None:
        """Hand on a piece; a request whose listener fails is cancelled."""
        if self.hear is None:
            return
        try:
            self.hear(piece)
        except Exception:  # of any kind: it is another's code
            self.ticket.cancel()
