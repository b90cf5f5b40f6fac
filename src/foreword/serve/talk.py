"""A talk with a prompt, or with the model alone: several turns, each streamed as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from foreword.errors import UserError
from foreword.prompt.answerer import Answerer
from foreword.serve.engine import Engine
from foreword.serve.request import Piece
from foreword.serve.texts import TextRequest, TextRequests, TooLongError

MOST = 2**20
"""Tokens of an answer where nothing else bounds them: the model's room does."""


def streamed(engine: Engine, asked: TextRequest) -> Iterator[str]:
    """Yield the text of one completion as it is written; it is cancelled when it is left early."""
    heard: SimpleQueue[Piece] = SimpleQueue()
    ticket = engine.generate(asked.ids, asked.prompt, asked.sampling, heard.put)
    trimmed, done = asked.trimmed(), False
    try:
        while not done:
            piece = heard.get()
            if piece.finish == "error":
                ticket.result()
            done = piece.finish is not None
            if text := trimmed.add(piece.text, last=done):
                yield text
    finally:
        ticket.cancel()


class Talk:
    """The turns of one conversation, which begins anew with :meth:`reset`.

    ``system`` is what stands before all turns. ``settings`` are those of :class:`Sampling` that
    take the place of the prompt's own.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Answerer | None = None,
        *,
        system: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.engine, self.prompt, self.settings = engine, prompt, dict(settings or {})
        self.texts = TextRequests(engine.backbone)
        self.first = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, str]] = []
        self.forgotten = 0
        self.reset()

    def reset(self) -> None:
        """Forget all turns but the system's."""
        self.messages, self.forgotten = list(self.first), 0

    def check(self) -> None:
        """Raise UserError for a prompt that cannot talk, before anything is asked."""
        if self.prompt is not None:
            self._laid_out({"role": "user", "content": "a"})

    def say(self, text: str) -> Iterator[str]:
        """Return the assistant's answer as it is written; both turns are kept once it is read.

        Of a conversation that is longer than what is read, the first turns are left out, and
        ``forgotten`` counts them. Raises UserError where even the last turn is too long; nothing is
        left out then.
        """
        turn = {"role": "user", "content": text}
        return self._answered(turn, self._laid_out(turn))

    def _answered(self, turn: dict[str, str], asked: TextRequest) -> Iterator[str]:
        said = ""
        try:
            for piece in streamed(self.engine, asked):
                said += piece
                yield piece
        finally:
            if said:
                self.messages += [turn, {"role": "assistant", "content": said}]

    def _laid_out(self, turn: Mapping[str, str]) -> TextRequest:
        first, left_out = len(self.first), 0
        while True:
            kept = [*self.first, *self.messages[first + left_out :]]
            try:
                made = self.texts.chat(self.prompt, [*kept, turn], self.settings, MOST)
            except TooLongError as error:
                if error.field == "max_tokens" or len(kept) < first + 2:
                    # Said by the name of the setting that is ours.
                    said = str(error).replace("`max_tokens`", "`max_new_tokens`")
                    raise TooLongError(said) from None
                left_out += 2
            else:
                self.messages, self.forgotten = kept, self.forgotten + left_out
                return made

    def save(self, path: Path) -> None:
        """Add the conversation to a file, as one row of messages, which training can read.

        Raises UserError where nothing has been said, and where the file cannot be written.
        """
        if len(self.messages) == len(self.first):
            raise UserError("nothing has been said yet")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
