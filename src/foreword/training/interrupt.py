"""Ctrl-C and SIGTERM in a long run: heard between steps, so that what is done can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """The user stopped the run; it was saved where that was asked for. ``signal`` is its cause."""

    def __init__(self, why: str, number: int | None = None) -> None:
        super().__init__(why)
        self.signal = signal.SIGINT if number is None else number


class Enough(Exception):  # noqa: N818 (it is no error)
    """What a reporter raises to end a run early, as ``patience`` does: its best state is kept."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends what Ctrl-C ends."""


class Stop:
    """Whether a run is asked to stop, and by which signal."""

    signal: int | None = None


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into Terminated, so that a command ends what it began."""
    if not _hears_signals() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a flag that is looked at between steps; a second one kills.

    So is SIGTERM inside of ``terminable``.
    """
    stop = Stop()
    if not _hears_signals():
        yield stop
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        stop.signal = number

    numbers = [signal.SIGINT]
    if signal.getsignal(signal.SIGTERM) is _terminate:
        numbers.append(signal.SIGTERM)
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _hears_signals() -> bool:
    return threading.current_thread() is threading.main_thread()
