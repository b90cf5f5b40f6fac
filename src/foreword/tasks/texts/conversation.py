"""Conversations: messages as text, by the model's chat template or line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foreword.backbone.backbone import Backbone
from foreword.backbone.chat_template import ChatTemplateError, Messages
from foreword.backbone.tokenizer import Text
from foreword.data.conversations import TEMPLATE_KEYS
from foreword.errors import UserError
from foreword.tasks.templates.layout import answer_ids


def lines(messages: Messages) -> str:
    """Return messages as a line each, and the beginning of the assistant's."""
    turns = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages]
    return "\n".join([*turns, "Assistant:"])


@dataclass(frozen=True)
class Turn:
    """A turn of the assistant: the text before it, its own, and what ends it."""

    before: str
    said: str
    end: str


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation from the assistant's first turn that is learned on, as tokens.

    ``before`` is the text in front of them, and ``said`` the indices of the tokens that are
    learned: the assistant's, with those that end its turns.
    """

    before: str
    ids: tuple[int, ...]
    said: tuple[int, ...]


@dataclass(frozen=True)
class Conversation:
    """Messages, with the tools that they speak of, as a tokenizer's chat template writes them.

    Without a chat template each turn is a line that names its role. ``where`` is the row's place.
    """

    text: Text
    messages: Messages
    tools: Sequence[Any]
    where: str

    def __post_init__(self) -> None:
        """Raise UserError for what the row holds and the chat template does not write."""
        chat = self.text.chat
        if self.tools and (chat is None or not self._writes_tools()):
            raise self._unwritten('the row\'s "tools"', "remove them")
        for number, turn in enumerate(self.messages):
            keys = [key for key in TEMPLATE_KEYS if key in turn]
            if turn["role"] == "tool" and "name" in keys:
                keys.remove("name")
            for key in keys:
                if chat is None or not self._reads(number, key):
                    raise self._unwritten(
                        f"messages[{number}].{key}", "remove it, or put it into the content"
                    )

    def _unwritten(self, what: str, mend: str) -> UserError:
        if self.text.chat is None:
            return UserError(
                f"{self.where}: {what} is for a chat template, which the model's tokenizer lacks; "
                f"{mend}"
            )
        return self._wrong(f"does not write {what}; {mend}")

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{self.where}: the model's chat template {what}")

    def _writes_tools(self) -> bool:
        return self._rendered(self.messages) != self._rendered(self.messages, tools=())

    def _reads(self, number: int, key: str) -> bool:
        """Whether the template writes what a turn holds under a key, where the turn is the last."""
        upto = [*self.messages[: number + 1]]
        without = {name: value for name, value in upto[-1].items() if name != key}
        return self._rendered(upto) != self._rendered([*upto[:-1], without])

    def _rendered(self, messages: Messages, tools: Sequence[Any] | None = None) -> str:
        """Return messages as text, whole."""
        assert self.text.chat is not None
        try:
            return self.text.chat.render(
                messages, ask=False, tools=self.tools if tools is None else tools
            )
        except ChatTemplateError as error:
            raise self._refused(error) from None

    def _refused(self, error: ChatTemplateError) -> UserError:
        return self._wrong(
            f"does not take these messages ({error}); mend the row's roles and their order"
        )

    def prompt(self, count: int | None = None) -> str:
        """Return the first ``count`` messages as the text after which the assistant speaks.

        Raises UserError for messages that the chat template refuses.
        """
        messages = self.messages if count is None else self.messages[:count]
        if self.text.chat is None:
            return lines(messages)
        try:
            return self.text.chat.before_answer(messages, self.tools)
        except ChatTemplateError as error:
            raise self._refused(error) from None

    def asked(self) -> str:
        """Return :meth:`prompt` of all messages; raises UserError where one is left out of it."""
        prompt = self.prompt()
        self.check_whole(prompt)
        return prompt

    def check_whole(self, whole: str) -> None:
        """Raise UserError where messages as text leave out one that is no turn of the talk."""
        for turn in self.messages:
            if turn["role"] in ("system", "tool") and turn["content"].strip() not in whole:
                raise self._wrong(
                    f"leaves out what the {turn['role']} says; put it into another message"
                )

    def turn(self, number: int, whole: str | None = None) -> Turn | None:
        """Return a turn of the assistant as it stands in the whole; None where it stands not so."""
        before, own = self.prompt(number), self.messages[number]
        chat = self.text.chat
        if chat is None:
            return Turn(before, f" {own['content'].lstrip()}", "")
        whole = self._rendered(self.messages) if whole is None else whole
        if not whole.startswith(before):
            return None
        rest = whole[len(before) :]
        given = own["content"]
        starts = (
            opening + content
            for opening in dict.fromkeys((chat.opening, ""))
            for content in (given, given.strip(), given.lstrip(), given.rstrip())
        )
        size = next((len(start) for start in starts if start and rest.startswith(start)), 0)
        mark = self.text.turn_mark
        if mark is None:
            return Turn(before, rest[:size], "")
        at = rest.find(mark, size)
        if at < 0:
            return None
        if not rest[size:at].strip():  # a space before the mark
            return Turn(before, rest[:size], rest[size : at + len(mark)])
        return Turn(before, rest[:at], mark)

    def last(self) -> Turn:
        """Return the last turn, which is the assistant's."""
        number = len(self.messages) - 1
        found = self.turn(number)
        if found is not None and found.said:
            return found
        chat, said = self.text.chat, self.messages[-1]["content"]
        opening = "" if chat is None else chat.opening
        return Turn(self.prompt(number), opening + said, self.text.turn_mark or "")


def encode_conversation(backbone: Backbone, talk: Conversation) -> EncodedConversation:
    """Encode a conversation that ends with the assistant, all of whose turns are learned.

    Those of ``weight`` 0 are not. Raises UserError if the chat template rewrites earlier turns, so
    that no single text has all of them.
    """
    text = talk.text
    whole = None if text.chat is None else talk._rendered(talk.messages)
    first, done = None, ""
    ids: list[int] = []
    said: list[int] = []
    for number, own in enumerate(talk.messages):
        if own["role"] != "assistant" or own.get("weight") == 0:
            continue
        turn = talk.turn(number, whole)
        if turn is None or not turn.before.startswith(done) or not turn.said:
            raise talk._wrong(
                "does not leave earlier turns as they are; learn the last one alone, with `turns` "
                "last"
            )
        if first is None:
            first = turn.before
        else:
            ids += text.continuation(done, turn.before[len(done) :])
        spoken = answer_ids(backbone, turn.before, turn.said)
        spoken += text.continuation(turn.before + turn.said, turn.end) if turn.end else []
        said += range(len(ids), len(ids) + len(spoken))
        ids += spoken
        done = turn.before + turn.said + turn.end
        last = not turn.end and number == len(talk.messages) - 1
        if last and text.end is not None:
            said.append(len(ids))
            ids.append(text.end)
    if whole is not None:
        talk.check_whole(whole)
    assert first is not None, "rows without a turn to learn are refused before"
    return EncodedConversation(first, tuple(ids), tuple(said))


def without_first_turns(messages: Messages) -> list[Any] | None:
    """Drop the first turns of a conversation, up to the next user's; None if there is one turn.

    System messages at its head are kept.
    """
    head = next((n for n, turn in enumerate(messages) if turn["role"] != "system"), len(messages))
    users = [n for n, turn in enumerate(messages) if turn["role"] == "user" and n > head]
    return [*messages[:head], *messages[users[0] :]] if users else None
