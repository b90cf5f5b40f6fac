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
from foreword.serve.tool_form import ToolForm, form_of, plain_messages
from foreword.serve.tool_rule import ToolRule, Tools
from foreword.tasks.chat import Chat
from foreword.tasks.generate import Generate
from foreword.tasks.registry import name_of
from foreword.tasks.templates.layout import NoRoomError, room_beside, room_for
from foreword.tasks.texts.generator import Generator

Messages = Sequence[Mapping[str, Any]]

WHERE = "the request"
"""What a request's row is called where it is wrong."""


class TooLongError(UserError):
    """A request does not fit the model, or what the prompt reads; ``field`` is what to shorten."""


class NoTextError(UserError):
    """A prompt whose task is not to write text, or not this kind of it; ``ask`` says what can."""

    def __init__(self, message: str, ask: str | None = None) -> None:
        super().__init__(message)
        self.ask = ask


class Trimmed:
    """What is written, without the spaces around it and the empty thoughts before it.

    What it has given out is at every time a beginning of the answer that the task makes of the
    whole text (``TextExamples.answer_of``).
    """

    def __init__(self, opening: str = "") -> None:
        self.opening, self.held, self.begun = opening.strip(), "", False
        self.given = 0

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
        self.given += len(given)
        return given

    @property
    def length(self) -> int:
        """How long the answer is so far, with spaces that may be around it."""
        return self.given + len(self.held) if self.begun else 0


class Untouched:
    """What is written as it is."""

    def __init__(self) -> None:
        self.length = 0

    def add(self, text: str, *, last: bool = False) -> str:
        """Return the text."""
        self.length += len(text)
        return text


@dataclass(frozen=True)
class TextRequest:
    """A row of token ids to continue behind a prompt, and how."""

    ids: tuple[int, ...]
    prompt: Prompt | None
    sampling: Sampling
    opening: str | None  # what an answer goes without, None where all is given
    rule: ToolRule | None = None  # where tools may be called

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

    @cached_property
    def _form(self) -> ToolForm:
        """How answers call tools."""
        return form_of(self.backbone.text)

    def _check(self) -> None:
        if not self.backbone.can_generate:
            raise NoTextError(f"{self.backbone.name} writes no text", "/v1/predict")

    def completion(
        self,
        prompt: Answerer | None,
        text: str | Sequence[int],
        settings: Mapping[str, Any],
        most: int,
    ) -> TextRequest:
        """Lay a text out: in the one field of the prompt's template, or as it is for the model.

        Token ids stand behind the prompt as they are, without its template.

        ``settings`` are of :class:`Sampling`, in place of the prompt's own, but for stop texts,
        which come to these; where they do not say how many tokens to write it is no more than
        ``most``. Raises NoTextError for a prompt whose
        task is another one, and TooLongError.
        """
        if not isinstance(text, str):
            return self._as_ids(prompt, text, settings, most)
        if prompt is None:
            return self._laid_out(self._plain, {"prompt": text}, None, settings, most, "prompt")
        bound = _writing(prompt)
        named = [name for name in bound.fields if name != "messages"]
        if len(bound.fields) != 1:
            raise NoTextError(
                f"the prompt reads the fields {', '.join(named)}",
                "/v1/predict, with inputs that have these fields",
            )
        return self._laid_out(bound, {bound.fields[0]: text}, prompt, settings, most, "prompt")

    def chat(
        self,
        prompt: Answerer | None,
        messages: Messages,
        settings: Mapping[str, Any],
        most: int,
        tools: Tools | None = None,
    ) -> TextRequest:
        """Lay a conversation out: by the prompt's own template where that reads messages.

        Else by the model's chat template, behind the prompt. ``settings`` and ``most`` are those
        of :meth:`completion`, and so is what is raised. ``tools`` are said as the chat template
        says them; where it does not, they are plain text, and so are calls among the messages.
        """
        bound = self._chat
        if prompt is not None:
            own = _writing(prompt)
            if own.fields == ("messages",):
                bound = own
            elif own.virtual:
                raise NoTextError(
                    "the prompt has virtual tokens inside its template, which reads no messages",
                    "/v1/completions",
                )
        row: dict[str, Any] = {"messages": [dict(each) for each in messages]}
        functions = [] if tools is None else list(tools.functions)
        if functions or any(m.get("tool_calls") or m["role"] == "tool" for m in messages):
            if self._form.native:
                row["tools"] = functions
            else:
                chat = self.backbone.text.chat
                row["messages"] = plain_messages(row["messages"], functions, chat)
        made = self._laid_out(bound, row, prompt, settings, most, "messages")
        if tools is None:
            return made
        rule = ToolRule(tools, self._form, self.backbone, made.sampling.json_schema)
        return replace(made, rule=rule)

    def _as_ids(
        self,
        prompt: Answerer | None,
        ids: Sequence[int],
        settings: Mapping[str, Any],
        most: int,
    ) -> TextRequest:
        bound = self._plain if prompt is None else _writing(prompt)
        if bound.virtual:
            raise NoTextError(
                "the prompt has virtual tokens inside its template, which token ids go without; "
                "give `prompt` as a text"
            )
        sampling, _, room = self._settled(bound, prompt, settings, most)
        words = self.backbone.vocabulary
        if unknown := [token for token in ids if token >= words]:
            raise UserError(f"`prompt`: the token {unknown[0]} is none of the model's {words}")
        if len(ids) > room:
            raise _too_long(room, "prompt")
        own = prompt if isinstance(prompt, Prompt) else None
        return TextRequest(tuple(ids), own, sampling, None if prompt is None else self._opening)

    def _settled(
        self, bound: Generator, prompt: Answerer | None, settings: Mapping[str, Any], most: int
    ) -> tuple[Sampling, Injection, int]:
        """Return the sampling of a request, what it is under, and the room for its row."""
        usual = bound.task.decoding
        own = {each.name: getattr(usual, each.name) for each in fields(Decoding)}
        own["max_new_tokens"] = min(own["max_new_tokens"], most)
        stop = tuple(dict.fromkeys((*usual.stop, *settings.get("stop", ()))))
        sampling = Sampling(**{**own, **settings, "stop": stop})
        sampling.check()
        injection = prompt.injection if isinstance(prompt, Prompt) else NOTHING
        more, room = sampling.max_new_tokens, room_for(self.backbone, injection)
        if (left := room_beside(self.backbone, room, more)) < 1:
            raise TooLongError(
                f"`max_tokens` is {more}, and the model has room for {room} tokens in all",
                field="max_tokens",
            )
        return sampling, injection, left

    def _laid_out(
        self,
        bound: Generator,
        row: Mapping[str, Any],
        prompt: Answerer | None,
        settings: Mapping[str, Any],
        most: int,
        field: str,
    ) -> TextRequest:
        sampling, injection, room = self._settled(bound, prompt, settings, most)
        decoding = replace(bound.task.decoding, max_new_tokens=sampling.max_new_tokens)
        task: Any = bound.task  # a frozen dataclass, as all tasks are
        changed = bound.changed(task=replace(task, decoding=decoding))
        too_long = _too_long(room, field, bound.task.max_length)
        ids = self._ids(changed, Row(row, WHERE), injection, field, too_long)
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
        self,
        bound: Generator,
        row: Row,
        injection: Injection,
        field: str,
        too_long: TooLongError,
    ) -> tuple[int, ...]:
        try:
            (example,), (truncated,) = bound.lay_out([row], injection)
        except NoRoomError:
            raise too_long from None
        except UserError as error:
            raise UserError(str(error), field=error.field or field) from None
        if truncated:
            raise too_long
        return example.ids


def _too_long(room: int, field: str, reads: int | None = None) -> TooLongError:
    """Return that a row is longer than the ``room`` for it, or than what a prompt ``reads``."""
    if reads is not None and reads < room:
        said = f"{reads} tokens that the prompt reads; shorten it"
    else:
        said = (
            f"{max(0, room)} tokens that are read; shorten it, or ask for fewer with `max_tokens`"
        )
    return TooLongError(f"the request is longer than the {said}", field=field)


def _writing(prompt: Answerer) -> Generator:
    """Return the bound task of a prompt that writes text; raises NoTextError for another."""
    if not isinstance(prompt, Prompt):
        raise NoTextError("the prompt is an ensemble of several", "/v1/predict")
    if not isinstance(prompt.bound, Generator):
        raise NoTextError(f"the prompt's task is {name_of(prompt.task)}", "/v1/predict")
    return prompt.bound
