"""A tokenizer's chat template: conversations as text, and what stands around an answer in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]

MARK = "\ue000{}\ue001"
"""Stands for a text: of the private use area, so that no chat template writes or changes it."""


class ChatTemplateError(Exception):
    """A chat template does not take some messages; says why in one line."""


class ChatTemplate:
    """The chat template of a tokenizer, whatever its own code does.

    Whether it asks for an answer, and what it writes before and after one, is found by rendering
    a conversation of two turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def render(self, messages: Messages, *, ask: bool) -> str:
        """Return messages as text; ``ask`` adds what stands before the assistant's next one.

        Raises ChatTemplateError for messages that the template does not take.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(each) for each in messages], add_generation_prompt=ask, tokenize=False
                )
            )
        except Exception as error:  # a template is foreign code, which fails in its own ways
            why = " ".join(str(error).split()) or type(error).__name__
            raise ChatTemplateError(why.rstrip(" .")) from None

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What is written between asking for an answer and the answer, and after the answer."""
        asked = [{"role": "user", "content": "a"}]
        answer = {"role": "assistant", "content": MARK.format(0)}
        for before in (asked, [{"role": "system", "content": "a"}, *asked]):
            try:
                asking, plain = (self.render(before, ask=ask) for ask in (True, False))
                left, mark, right = self.render([*before, answer], ask=False).partition(
                    MARK.format(0)
                )
            except ChatTemplateError:
                continue
            if mark:
                opening = left.removeprefix(asking) if asking != plain else ""
                return opening if left != opening else "", right
        return "", ""

    @property
    def opening(self) -> str:
        """What it writes between asking for an answer and the answer, such as empty thoughts."""
        return self._around[0]

    @property
    def closing(self) -> str:
        """What it writes after an answer that is the last."""
        return self._around[1]
