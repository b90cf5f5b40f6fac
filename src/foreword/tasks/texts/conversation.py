"""Conversations: messages as text, by the model's chat template or line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from foreword.backbone.backbone import Backbone
from foreword.backbone.tokenizer import Text
from foreword.errors import UserError
from foreword.tasks.templates.layout import answer_ids

Messages = Sequence[dict[str, str]]


def render_chat(text: Text, messages: Messages, where: str) -> str:
    """Return messages as the text after which the model answers.

    Raises UserError for messages that the chat template refuses.
    """
    try:
        return apply_chat_template(text, messages)
    except TemplateError as error:
        raise UserError(
            f"{where}: the model's chat template does not take these messages ({error}); "
            "mend the row's roles and their order"
        ) from None


def apply_chat_template(text: Text, messages: Messages) -> str:
    """Return messages as text, up to where the assistant's next one begins.

    The tokenizer's chat template says how; without one each turn is a line that names its role.
    Raises TemplateError for messages that the template refuses.
    """
    tokenizer = text.tokenizer
    if tokenizer.chat_template is None:
        turns = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages]
        return "\n".join([*turns, "Assistant:"])
    whole = str(
        tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    )
    first = str(tokenizer.decode(list(text.around[0])))
    return whole.removeprefix(first)  # which laying out puts there


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation from the assistant's first turn on, as tokens.

    ``before`` is the text in front of them, and ``said`` the indices of the assistant's tokens,
    with those that end its turns.
    """

    before: str
    ids: tuple[int, ...]
    said: tuple[int, ...]


def encode_conversation(backbone: Backbone, messages: Messages, where: str) -> EncodedConversation:
    """Encode a conversation that ends with the assistant, all of whose turns are learned.

    Raises UserError if the chat template rewrites earlier turns, so that no single text has all of
    them.
    """
    text = backbone.text
    plain = text.tokenizer.chat_template is None
    first, done = "", ""
    ids: list[int] = []
    said: list[int] = []
    for number, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        whole = render_chat(text, messages[:number], where)
        if not whole.startswith(done):
            raise UserError(
                f"{where}: the model's chat template does not leave earlier turns as they are; "
                "learn the last one alone, with `turns` last"
            )
        if done:
            between = text.ids(whole[len(done) :])
            if between[:1] == [text.end]:
                said.append(len(ids))
            ids += between
        else:
            first = whole
        reply = f" {turn['content'].lstrip()}" if plain else turn["content"]
        own = answer_ids(backbone, whole, reply)
        said += range(len(ids), len(ids) + len(own))
        ids += own
        done = whole + reply
    if text.end is not None:
        said.append(len(ids))
        ids.append(text.end)
    return EncodedConversation(first, tuple(ids), tuple(said))


def without_first_turns(messages: Messages) -> list[dict[str, str]] | None:
    """Drop the first turns of a conversation, up to the next user's; None if there is one turn.

    System messages are kept.
    """
    apply_chat_template = [number for number, turn in enumerate(messages) if turn["role"] == "user"]
    if len(apply_chat_template) < 2:
        return None
    return [*messages[: apply_chat_template[0]], *messages[apply_chat_template[1] :]]
