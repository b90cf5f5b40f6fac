"""The loop's work: rows that wait take slots, and each step reads on in those that have one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from foreword.backbone.backbone import Backbone
from foreword.injection import Injection
from foreword.serve.choose import choose
from foreword.serve.held import Held, HeldPrompts
from foreword.serve.pool import Pool
from foreword.serve.request import Finish, Request, TokenLogprob
from foreword.serve.rows import Row, Turn, read
from foreword.serve.states import Reading
from foreword.serve.writer import Writer
from foreword.serve.writing import COUNTS as WRITTEN
from foreword.serve.writing import Writing, chooser_for

COUNTS = ("finished", *WRITTEN, "steps", "rows", "tokens_read", "parted")
"""What a loop counts; ``rows`` are those of all its steps.

``parted`` are the steps that failed and were taken again row by row. Where no row is at fault, the
engine is, and it costs time alone."""


@dataclass(eq=False, kw_only=True)
class InSlot(Writing):
    """A request in its slot, with its row."""

    row: Row


@dataclass(eq=False)
class Line:
    """A line of a reading in its slot; ``number`` is its place there."""

    reading: Reading
    number: int
    row: Row


class Loop:
    """All that the engine's thread works on. Nothing here may be called from another one."""

    def __init__(
        self, backbone: Backbone, prompts: HeldPrompts, slots: int, chunk: int, tokens: int
    ) -> None:
        self.backbone, self.prompts = backbone, prompts
        self.slots, self.chunk = slots, chunk
        self.pool = Pool(backbone, tokens)
        self.waiting: deque[Request | Reading] = deque()
        self.running: list[InSlot | Line] = []
        self.counts = dict.fromkeys(COUNTS, 0)
        self._first: Held | None = None  # of the first that waits, so that it is loaded once

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self.waiting or self.running)

    def step(self) -> None:
        """Let rows that wait take free slots, and read on in those that have one."""
        self._end_cancelled()
        self._admit()
        groups: dict[int, list[InSlot | Line]] = {}
        for each in self.running:
            groups.setdefault(id(each.row.held.view), []).append(each)
        for group in groups.values():
            chosen = self._chosen(group)
            self._read(group[0].row.held.view, chosen)

    # Slots -------------------------------------------------------------------------------------

    def _end_cancelled(self) -> None:
        for each in [each for each in self.running if isinstance(each, InSlot)]:
            if each.request.cancelled:
                self._finish(each, "cancelled")
        for line in [line for line in self.running if isinstance(line, Line)]:
            if line.reading.cancelled:
                self._leave(line)
                line.reading.drop()
        for asked in [asked for asked in self.waiting if asked.cancelled]:
            self.waiting.remove(asked)
            asked.drop()

    def _admit(self) -> None:
        """Give slots to rows in the order in which they came."""
        while self.waiting and len(self.running) < self.slots:
            first = self.waiting[0]
            try:
                if isinstance(first, Request):
                    entered = self._enter(first)
                else:
                    entered = self._enter_lines(first)
            except Exception as error:  # its own; those behind it go on
                self._give_up(first, error)
                continue
            if not entered:
                return
            self.waiting.popleft()
        self._first = None

    def _enter(self, request: Request) -> bool:
        self._first = held = self.prompts.get(request.injection)
        how = request.sampling
        together = self._together(request.injection)
        row = Row.begin(held, request.ids, self.pool, how.max_new_tokens, together=together)
        if row is None:
            return self._must_wait()
        chooser = chooser_for(self.backbone, request, request.ids)
        writer = Writer(self.backbone, how.stop)
        self.running.append(InSlot(request, chooser, writer, self.counts, row=row))
        return True

    def _enter_lines(self, reading: Reading) -> bool:
        """Give slots to lines of a reading; return whether all of them have one, or had it."""
        while (number := reading.entered) < len(reading.laid.lines):
            if len(self.running) >= self.slots:
                return False
            self._first = held = self.prompts.get(reading.injection(number))
            line, wanted = reading.laid.lines[number], reading.wanted[number]
            together = self._together(held.injection)
            stop = max(wanted, default=len(line.tokens) - 1) + 1  # what follows is read for no one
            parents = None if line.parents is None else line.parents[:stop]
            row = Row.begin(held, line.tokens[:stop], self.pool, 0, parents, wanted, together)
            if row is None:
                return self._must_wait()
            self.running.append(Line(reading, number, row))
            reading.entered += 1
        return True

    def _together(self, injection: Injection) -> int:
        """Return how many rows under a prompt have a slot, or wait where one may be given next."""
        rows = sum(each.row.held.injection is injection for each in self.running)
        for asked in islice(self.waiting, self.slots):
            if isinstance(asked, Request):
                rows += asked.injection is injection
            else:
                rows += asked.rows[injection]
        return rows

    def _must_wait(self) -> bool:
        if not self.running:
            raise MemoryError("no slot is free, and no row has one")
        return False

    # A pass ------------------------------------------------------------------------------------

    def _chosen(self, group: Sequence[InSlot | Line]) -> list[tuple[InSlot | Line, Turn]]:
        """Return the rows of the next pass: all that write, and a chunk of those still read."""
        writing: list[InSlot | Line] = []
        reading: list[InSlot | Line] = []
        for each in group:
            left = len(each.row.tokens) - each.row.read
            (writing if left == 1 else reading).append(each)
        chosen = [(e, Turn(e.row, e.row.read, e.row.read + 1)) for e in writing]
        left = max(self.chunk - len(writing), self.chunk // 2, 1)
        for each in reading:
            stop = min(len(each.row.tokens), each.row.read + left)
            if left and stop > each.row.read:
                chosen.append((each, Turn(each.row, each.row.read, stop)))
                left -= stop - each.row.read
        return chosen

    def _read(self, view: Backbone, chosen: Sequence[tuple[InSlot | Line, Turn]]) -> None:
        """Read in one pass; where that fails row by row, so that the fault is that of its row.

        A line is left out whose reading has failed by another one.
        """
        chosen = [one for one in chosen if one[0] in self.running]
        if not chosen:
            return
        for each, _ in chosen:
            if isinstance(each, InSlot):
                each.row.wanted = [len(each.row.tokens) - 1]
        try:
            states = read(view, self.pool, [turn for _, turn in chosen])
        except Exception as error:  # of any kind: it is found out whose
            if len(chosen) > 1:
                self.counts["parted"] += 1
                for one in chosen:
                    self._read(view, [one])
                return
            self._fail(chosen[0][0], error)
            return
        self.counts["steps"] += 1
        self.counts["tokens_read"] += sum(turn.stop - turn.start for _, turn in chosen)
        self.counts["rows"] += len(chosen)
        ready: list[tuple[InSlot, Tensor]] = []
        for (each, turn), own in zip(chosen, states, strict=True):
            each.row.read = turn.stop
            if isinstance(each, Line):
                self._hear(each, turn, own)
            elif len(own):
                ready.append((each, own))
        if ready:
            self._write(view, ready)

    def _hear(self, line: Line, turn: Turn, states: Tensor) -> None:
        """Hand a line's states to its reading, unless that has failed by another line."""
        if line not in self.running:
            return
        lead = line.row.prefix.leading
        try:
            line.reading.hear(line.number, [n - lead for n in turn.wanted], states)
        except Exception as error:  # its own; the other rows go on
            self._fail(line, error)
            return
        if line.row.read == len(line.row.tokens):
            self._leave(line)

    def _write(self, view: Backbone, ready: Sequence[tuple[InSlot, Tensor]]) -> None:
        """Choose the next token of rows whose last states are there."""
        logits = view.logits(torch.cat([own for _, own in ready]))[:, : self.backbone.vocabulary]
        found = choose(logits, [each.chooser for each, _ in ready])
        for (each, _), made in zip(ready, found, strict=True):
            if isinstance(made, Exception):
                self._fail(each, made)
                continue
            try:
                self._go_on(each, *made)
            except Exception as error:  # its own; the other rows go on
                self._fail(each, error)

    def _go_on(self, each: InSlot, token: int, logprob: TokenLogprob | None) -> None:
        if (finish := each.go_on(token, logprob)) is not None:
            self._finish(each, finish)
        else:
            each.row.tokens.append(token)

    def _finish(self, each: InSlot, finish: Finish) -> None:
        self._leave(each)
        each.finish(finish)

    def _fail(self, each: InSlot | Line, error: Exception) -> None:
        self._give_up(each.reading if isinstance(each, Line) else each.request, error)

    def _give_up(self, asked: Request | Reading, error: BaseException) -> None:
        """Tell of a fault, and take what was asked out of the queue and its slots."""
        if asked in self.waiting:
            self.waiting.remove(asked)
        for each in list(self.running):
            if asked is (each.reading if isinstance(each, Line) else each.request):
                self._leave(each)
        asked.fail(error)

    def end_all(self, error: BaseException) -> None:
        """Tell all that wait or run of a fault that is not theirs."""
        for each in list(self.running):
            self._give_up(each.reading if isinstance(each, Line) else each.request, error)
        for asked in list(self.waiting):
            self._give_up(asked, error)

    def _leave(self, each: InSlot | Line) -> None:
        self.running.remove(each)
        each.row.give_back(self.pool)
        self.counts["finished"] += 1
