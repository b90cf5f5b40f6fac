"""Completions that are JSON of a schema: which tokens may come next, by llguidance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria

from foreword.errors import UserError

WRITTEN: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is written: with the spaces of Python's ``json.dumps``, and no others."""


SIGNS = '{}[]",:'


class JsonSchema:
    """A JSON schema that was read for a tokenizer; ``ends`` are the tokens that end a text.

    Raises UserError for what is no JSON schema, or has parts that cannot be followed token by
    token, and where llguidance is missing.
    """

    def __init__(
        self, schema: str, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
    ) -> None:
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise UserError(
                "`json_schema` needs llguidance; pip install 'foreword[json]', or leave it out"
            ) from None
        check_json_schema(schema)
        self.tokens = _tokens(tokenizer, tuple(ends))
        self.grammar = LLMatcher.grammar_from_json_schema(schema, overrides=WRITTEN)
        wrong = LLMatcher.validate_grammar(self.grammar, self.tokens)
        if wrong:
            raise UserError(f"`json_schema` cannot be followed: {' '.join(wrong.split())}; mend it")
        if self.tokens.decode_str(self.tokens.tokenize_str(SIGNS)) != SIGNS:
            raise UserError(
                "`json_schema` cannot be followed: the tokenizer has no tokens for some of "
                f"{SIGNS}; take another model, or leave it out"
            )

    def begin(self) -> JsonWriter:
        """Return the state of a completion of which nothing is written."""
        return JsonWriter(self)


class JsonWriter:
    """One completion under a schema; it is asked, and told, token by token."""

    def __init__(self, schema: JsonSchema) -> None:
        from llguidance import LLMatcher

        self._state = LLMatcher(schema.tokens, schema.grammar)

    def allow(self, scores: Tensor) -> Tensor:
        """Return scores (vocabulary,) in which tokens that may not come next are -inf."""
        bits = np.frombuffer(self._state.compute_bitmask(), dtype=np.uint8)
        known = np.unpackbits(bits, bitorder="little")[: len(scores)]
        allowed = torch.zeros(len(scores), dtype=torch.bool)
        allowed[: len(known)] = torch.from_numpy(known).bool()
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def accept(self, token: int) -> bool:
        """Go on with a token; return whether the JSON is finished."""
        if not self._state.is_stopped():
            self._state.consume_token(token)
        return bool(self._state.is_stopped())


class FollowsSchema(LogitsProcessor):
    """Leaves each row the tokens that go on with its JSON."""

    def __init__(self, writers: Sequence[JsonWriter]) -> None:
        self.writers = writers

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask scores: (B, vocabulary)."""
        rows = zip(self.writers, scores, strict=True)
        return torch.stack([writer.allow(row) for writer, row in rows])


class JsonIsWhole(StoppingCriteria):
    """Ends a row once its JSON is finished, and tells each row's writer of its tokens."""

    def __init__(self, writers: Sequence[JsonWriter]) -> None:
        self.writers = writers

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Tell which rows end: (B,)."""
        last = zip(self.writers, input_ids[:, -1].tolist(), strict=True)
        found = [writer.accept(token) for writer, token in last]
        return torch.tensor(found, device=input_ids.device)


def check_json_schema(schema: str) -> None:
    """Raise UserError for a text that is no JSON object."""
    try:
        read = json.loads(schema)
    except ValueError as error:
        raise UserError(f"`json_schema` is no JSON ({error}); give a JSON schema") from None
    if not isinstance(read, dict):
        raise UserError("`json_schema` is no JSON object; give a JSON schema")


@lru_cache(maxsize=4)  # it takes half a second and more
def _tokens(tokenizer: Any, ends: tuple[int, ...]) -> Any:
    """Return a tokenizer as llguidance reads it."""
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, eos_token=list(ends) or None)
    except ValueError as error:
        raise UserError(f"`json_schema` cannot be used with this tokenizer ({error})") from None
