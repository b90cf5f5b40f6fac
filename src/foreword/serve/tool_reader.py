"""Answers that call tools, parted into their text and their calls while they are written."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class CallPiece:
    """More of a call: its ``id`` and ``name`` with the first piece, then parts of its arguments."""

    number: int
    arguments: str = ""
    name: str | None = None
    id: str | None = None


class ToolReader:
    """Hears an answer that obeys a :class:`ToolRule`, in pieces of any size.

    ``begin``, ``between`` and ``again`` are those of its form, as they can be read. Where a call is
    ``required``, the beginning of one that was cut off is no text.
    """

    def __init__(
        self, begin: str, between: str, again: str | None, *, required: bool = False
    ) -> None:
        self.begin, self.between, self.again = begin, between, again
        self.required = required
        self.calls = 0
        self._held, self._reads = "", self._text
        self._depth, self._quoted, self._escaped = 0, False, False

    def add(self, text: str, *, last: bool = False) -> tuple[str, list[CallPiece]]:
        """Return the text outside of calls, and what is new of calls; all with the ``last``."""
        self._held += text
        said, found = "", list[CallPiece]()
        before = None
        while before != (self._held, self._reads):
            before = self._held, self._reads
            for each in self._reads(last):
                if isinstance(each, str):
                    said += each
                else:
                    found.append(each)
        return said, found

    def _text(self, last: bool) -> Iterator[str | CallPiece]:
        said, mark, rest = self._held.partition(self.begin)
        if mark:
            self._held, self._reads = rest, self._name
        else:
            kept = 0 if last and not self.required else _overlap(said, self.begin)
            said, self._held = said[: len(said) - kept], said[len(said) - kept :]
        yield said

    def _name(self, last: bool) -> Iterator[str | CallPiece]:
        name, mark, rest = self._held.partition(self.between)
        if mark:
            self._held, self._reads = rest, self._arguments
            self.calls += 1
            # Nine letters and digits, as some chat templates demand of an id.
            yield CallPiece(self.calls - 1, name=name, id=secrets.token_hex(5)[:9])

    def _arguments(self, last: bool) -> Iterator[str | CallPiece]:
        for place, sign in enumerate(self._held, 1):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = sign == "\\", sign != '"'
            else:
                self._quoted = sign == '"'
                self._depth += (sign in "{[") - (sign in "}]")
                if not self._depth:
                    own, self._held = self._held[:place], self._held[place:]
                    self._reads = self._after
                    break
        else:
            own, self._held = self._held, ""
        if own:
            yield CallPiece(self.calls - 1, own)

    def _after(self, last: bool) -> Iterator[str | CallPiece]:
        if self.again is not None and self._held.startswith(self.again):
            self._held, self._reads = self._held.removeprefix(self.again), self._name
        yield from ()


def _overlap(text: str, mark: str) -> int:
    """Return how many characters at the end of a text may begin a mark."""
    sizes = range(min(len(text), len(mark) - 1), 0, -1)
    return next((size for size in sizes if mark.startswith(text[-size:])), 0)
