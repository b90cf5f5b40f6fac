"""Log-probabilities of tokens, in the two forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.backbone.tokenizer import Text
    from foreword.serve.request import TokenLogprob
    from foreword.serve.texts import Trimmed, Untouched

LEAST = -9999.0
"""What stands for minus infinity, which JSON does not have."""


def of_chat(text: Text, found: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return them as a chat completion has them."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        known = list(text.spelled_bytes(token))
        return {"token": text.spelled(token), "logprob": max(logprob, LEAST), "bytes": known}

    return {
        "content": [
            {**one(each.token, each.logprob), "top_logprobs": [one(*top) for top in each.top]}
            for each in found
        ],
        "refusal": None,
    }


class Offsets:
    """Where the tokens of an answer stand in it, one after the other, from ``begin`` on."""

    def __init__(self, text: Text, trimmed: Trimmed | Untouched, begin: int = 0) -> None:
        from foreword.serve.writer import GrowingText

        self.tokens: list[int] = []
        self.begin = begin
        self._text, self._trimmed = GrowingText(text, self.tokens), trimmed

    def add(self, token: int) -> int:
        """Return where the next token stands."""
        at = self.begin + self._trimmed.length
        self.tokens.append(token)
        self._trimmed.add(self._text.more())
        return at


def of_text(text: Text, found: Sequence[TokenLogprob], offsets: Offsets) -> dict[str, Any]:
    """Return them as a completion has them."""
    return {
        "tokens": [_key(text, each.token) for each in found],
        "token_logprobs": [max(each.logprob, LEAST) for each in found],
        "top_logprobs": [_by_text(text, each) for each in found],
        "text_offset": [offsets.add(each.token) for each in found],
    }


def of_given(text: Text, ids: Sequence[int], found: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return those of a text that is given, of whose first token nothing is told."""
    from foreword.serve.texts import Untouched

    offsets = Offsets(text, Untouched())
    first = {
        "tokens": [_key(text, ids[0])],
        "token_logprobs": [None],
        "top_logprobs": [None],
        "text_offset": [offsets.add(ids[0])],
    }
    return joined(first, of_text(text, found, offsets))


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return those of a text, and of the text behind it."""
    return {name: [*values, *other[name]] for name, values in one.items()}


def _by_text(text: Text, each: TokenLogprob) -> dict[str, float]:
    """Return the likeliest tokens, and the one that was written, by their texts."""
    made: dict[str, float] = {}
    for token, logprob in dict([*each.top, (each.token, each.logprob)]).items():
        key = _key(text, token)
        made[_bytes(text, token) if key in made else key] = max(logprob, LEAST)
    return made


def _key(text: Text, token: int) -> str:
    """Return a token as text, and one that is no whole character by its bytes."""
    said = text.spelled(token)
    return _bytes(text, token) if "\ufffd" in said else said


def _bytes(text: Text, token: int) -> str:
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text.spelled_bytes(token))
