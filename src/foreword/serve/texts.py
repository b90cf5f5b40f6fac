"""Requests for text: laid out by the prompt's own template, or as the model alone reads text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import Decoding
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.injection import NOTHING, Injection
from foreword.prompt.answerer import Answerer
from foreword.prompt.prompt import Prompt
from foreword.serve.request import Sampling
from foreword.tasks.chat import Chat
from foreword.tasks.generate import Generate
from foreword.tasks.registry import name_of
from foreword.tasks.templates.layout import room_for
from foreword.tasks.texts.generator import Generator

Messages = Sequence[Mapping[str, Any]]

WHERE = "the request"
"""What a request's row is called where it is wrong."""


class TooLongError(UserError):
    """A request does not fit the model, or what the prompt reads; ``field`` is what to shorten."""


class NoTextError(UserError):
    """A prompt whose task is not to write text, or not this kind of it."""


class Trimmed:
    """What is written, without the spaces around it and the empty thoughts before it.

    What it has given out is at every time a beginning of the answer that the task makes of the
    whole text (``TextExamples.answer_of``).
    """

    def __init__(self, opening: str = "") -> None:
        self.opening, self.held, self.begun = opening.strip(), "", False

    def add(self, text: str, *, last: bool = False) -> str:
        """Return what can be given out after ``text``; all that is left with the ``last``."""
        self.held += text
        if not self.begun:
            start = self.held.lstrip()
            if not last and (not start or self.opening.startswith(start)):
                return ""
            self.held = start.removeprefix(self.opening).lstrip()
            if not self.held:
                return ""
            self.begun = True
        given = self.held.rstrip()
        self.held = self.held[len(given) :]
        return given


class Untouched:
    """What is written as it is."""

    def add(self, text: str, *, last: bool = False) -> str:
        """Return the text."""
        return text


@dataclass(frozen=True)
class TextRequest:
    """A row of token ids to continue behind a prompt, and how."""

    ids: tuple[int, ...]
    prompt: Prompt | None
    sampling: Sampling
    opening: str | None  # what an answer goes without, None where all is given

    def trimmed(self) -> Trimmed | Untouched:
        """Return what makes an answer of the text that is written."""
        return Untouched() if self.opening is None else Trimmed(self.opening)


class TextRequests:
    """Lays requests for text out on a backbone."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @cached_property
    def _plain(self) -> Generator:
        """Text as it stands."""
        self._check()
        task = Generate(template="{prompt}", max_length=self.backbone.longest)
        return task.bind(self.backbone)

    @cached_property
    def _chat(self) -> Generator:
        """Messages by the model's chat template, or line by line where it has none."""
        self._check()
        usual = Chat().decoding
        if self.backbone.text.chat is None:
            usual = replace(usual, stop=("\nUser:",))
        task = Chat(template="{messages}", max_length=self.backbone.longest, decoding=usual)
        return task.bind(self.backbone)

    def _check(self) -> None:
        if not self.backbone.can_generate:
            raise NoTextError(f"{self.backbone.name} writes no text; ask /v1/predict")

    def completion(
        self, prompt: Answerer | None, text: str, settings: Mapping[str, Any], most: int
    ) -> TextRequest:
        """Lay a text out: in the one field of the prompt's template, or as it is for the model.

        ``settings`` are of :class:`Sampling`, in place of the prompt's own; where they do not say
        how many tokens to write it is no more than ``most``. Raises NoTextError for a prompt whose
        task is another one, and TooLongError.
        """
        if prompt is None:
            return self._laid_out(self._plain, {"prompt": text}, None, settings, most, "prompt")
        bound = _writing(prompt)
        named = [name for name in bound.fields if name != "messages"]
        if len(bound.fields) != 1:
            raise NoTextError(
                f"the prompt reads the fields {', '.join(named)}; ask /v1/predict, with inputs "
                "that have these fields"
            )
        return self._laid_out(bound, {bound.fields[0]: text}, prompt, settings, most, "prompt")

    def chat(
        self, prompt: Answerer | None, messages: Messages, settings: Mapping[str, Any], most: int
    ) -> TextRequest:
        """Lay a conversation out: by the prompt's own template where that reads messages.

        Else by the model's chat template, behind the prompt. ``settings`` and ``most`` are those
        of :meth:`completion`, and so is what is raised.
        """
        bound = self._chat
        if prompt is not None:
            own = _writing(prompt)
            if own.fields == ("messages",):
                bound = own
            elif own.virtual:
                raise NoTextError(
                    "the prompt has virtual tokens inside its template, which reads no messages; "
                    "ask /v1/completions"
                )
        row = {"messages": [dict(each) for each in messages]}
        return self._laid_out(bound, row, prompt, settings, most, "messages")

    def _laid_out(
        self,
        bound: Generator,
        row: Mapping[str, Any],
        prompt: Answerer | None,
        settings: Mapping[str, Any],
        most: int,
        field: str,
    ) -> TextRequest:
        usual = bound.task.decoding
        own = {each.name: getattr(usual, each.name) for each in fields(Decoding)}
        own["max_new_tokens"] = min(own["max_new_tokens"], most)
        sampling = Sampling(**{**own, **settings})
        sampling.check()
        injection = prompt.injection if isinstance(prompt, Prompt) else NOTHING
        more = sampling.max_new_tokens
        if (room := room_for(self.backbone, injection) - more) < 1:
            raise TooLongError(
                f"`max_tokens` is {more}, and the model has room for {room + more} tokens in all",
                field="max_tokens",
            )
        decoding = replace(usual, max_new_tokens=more)
        task: Any = bound.task  # a frozen dataclass, as all tasks are
        changed = bound.changed(task=replace(task, decoding=decoding))
        ids = self._ids(
            changed, Row(row, WHERE), injection, min(room, bound.task.max_length), field
        )
        return TextRequest(
            ids,
            prompt if isinstance(prompt, Prompt) else None,
            sampling,
            None if bound is self._plain else self._opening,
        )

    @property
    def _opening(self) -> str:
        chat = self.backbone.text.chat
        return "" if chat is None else chat.opening

    def _ids(
        self, bound: Generator, row: Row, injection: Injection, room: int, field: str
    ) -> tuple[int, ...]:
        (example,), (truncated,) = bound.lay_out([row], injection)
        if truncated:
            raise TooLongError(
                f"the request is longer than the {room} tokens that are read; shorten it, or ask "
                "for fewer tokens with `max_tokens`",
                field=field,
            )
        return example.ids


def _writing(prompt: Answerer) -> Generator:
    """Return the bound task of a prompt that writes text; raises NoTextError for another."""
    if not isinstance(prompt, Prompt):
        raise NoTextError("the prompt is an ensemble of several; ask /v1/predict")
    if not isinstance(prompt.bound, Generator):
        raise NoTextError(f"the prompt's task is {name_of(prompt.task)}; ask /v1/predict")
    return prompt.bound
