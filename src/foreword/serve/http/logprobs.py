"""Log-probabilities of tokens, in the two forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.backbone.tokenizer import Text
    from foreword.serve.request import TokenLogprob

LEAST = -9999.0
"""What stands for minus infinity, which JSON does not have."""


def of_chat(text: Text, found: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return them as a chat completion has them."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        said = written(text, token)
        known = None if "\ufffd" in said else list(said.encode())
        return {"token": said, "logprob": max(logprob, LEAST), "bytes": known}

    return {
        "content": [
            {**one(each.token, each.logprob), "top_logprobs": [one(*top) for top in each.top]}
            for each in found
        ],
        "refusal": None,
    }


def of_text(text: Text, found: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """Return them as a completion has them; ``offset`` is where its first token stands."""
    tokens = [written(text, each.token) for each in found]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [max(each.logprob, LEAST) for each in found],
        "top_logprobs": [
            {written(text, token): max(logprob, LEAST) for token, logprob in each.top}
            for each in found
        ],
        "text_offset": offsets,
    }


def written(text: Text, token: int) -> str:
    """Return a token as text, special ones by their names."""
    return str(text.tokenizer.decode([token], clean_up_tokenization_spaces=False))
