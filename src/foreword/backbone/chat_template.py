"""A tokenizer's chat template: conversations as text, and what stands around an answer in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]

MARK = "\ue000{}\ue001"
"""Stands for a text: of the private use area, so that no chat template writes or changes it."""

ANSWER = "\ue002"
"""Stands for an answer, beside marks."""


class ChatTemplateError(Exception):
    """A chat template does not take some messages; says why in one line."""


class ChatTemplate:
    """The chat template of a tokenizer, whatever its own code does.

    What it writes around an answer is found by rendering a conversation of two turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def render(self, messages: Messages, *, ask: bool, tools: Sequence[Any] = ()) -> str:
        """Return messages as text; ``ask`` adds what stands before the assistant's next one.

        Raises ChatTemplateError for messages that the template does not take.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(each) for each in messages],
                    tools=list(tools) or None,
                    add_generation_prompt=ask,
                    tokenize=False,
                )
            )
        except Exception as error:  # a template is foreign code, which fails in its own ways
            why = " ".join(str(error).split()) or type(error).__name__
            raise ChatTemplateError(why.rstrip(" .")) from None

    def before_answer(self, messages: Messages, tools: Sequence[Any] = ()) -> str:
        """Return messages, of which there may be none, as the text that an answer follows.

        Some templates do not ask: they write what stands before an answer with the answer.
        Raises ChatTemplateError for messages that the template does not take.
        """
        if messages and self.asks:
            return self.render(messages, ask=True, tools=tools)
        answer = {"role": "assistant", "content": ANSWER}
        whole = self.render([*messages, answer], ask=False, tools=tools)
        left, mark, _ = whole.partition(ANSWER)
        if not mark:
            raise ChatTemplateError("it does not write the assistant's words")
        return left.removesuffix(self.opening)

    @cached_property
    def _probe(self) -> tuple[bool, str, str]:
        """Whether it asks for an answer, and what it writes right before and after one."""
        asked = [{"role": "user", "content": "a"}]
        answer = {"role": "assistant", "content": ANSWER}
        for before in (asked, [{"role": "system", "content": "a"}, *asked]):
            try:
                asking, plain = (self.render(before, ask=ask) for ask in (True, False))
                whole = self.render([*before, answer], ask=False)
            except ChatTemplateError:
                continue
            left, mark, right = whole.partition(ANSWER)
            if mark:
                asks = asking != plain or not left.removeprefix(asking).strip()
                opening = left.removeprefix(asking) if left.startswith(asking) and asks else ""
                return asks, opening, right
        return True, "", ""

    @property
    def asks(self) -> bool:
        """Whether what stands before an answer can be had without the answer."""
        return self._probe[0]

    @property
    def opening(self) -> str:
        """What it writes between asking for an answer and the answer, such as empty thoughts."""
        return self._probe[1]

    @property
    def closing(self) -> str:
        """What it writes after an answer that is the last."""
        return self._probe[2]
