"""Completions that obey a grammar, such as a JSON schema: which tokens may come next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from foreword.errors import UserError

WRITTEN: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is written: with the spaces of Python's ``json.dumps``, and no others."""


SIGNS = '{}[]",:'


class TextRule:
    """A grammar of llguidance's that was read for a tokenizer; ``ends`` are what ends a text.

    ``setting`` is what errors call it. Raises UserError for a grammar that cannot be followed
    token by token, and where llguidance is missing.
    """

    def __init__(
        self,
        setting: str,
        write: Callable[[Any, Any], str],  # (LLMatcher, the tokens) -> the grammar
        tokenizer: PreTrainedTokenizerBase,
        ends: Sequence[int],
        signs: str = SIGNS,  # that must be written, whatever else
    ) -> None:
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise UserError(
                f"`{setting}` needs llguidance; pip install 'foreword[json]', or leave it out"
            ) from None
        self.setting = setting
        self.tokens = _tokens(tokenizer, tuple(ends))
        self.grammar = write(LLMatcher, self.tokens)
        wrong = LLMatcher.validate_grammar(self.grammar, self.tokens)
        if wrong:
            why, option, _ = " ".join(wrong.split()).partition(" Enable 'coerce_one_of'")
            mend = " where two may hold at once; take anyOf" if option else "; mend it"
            raise UserError(f"`{setting}` cannot be followed: {why.rstrip('.')}{mend}")
        if self.tokens.decode_str(self.tokens.tokenize_str(signs)) != signs:
            raise UserError(
                f"`{setting}` cannot be followed: the tokenizer has no tokens for some of "
                f"{''.join(dict.fromkeys(signs)).strip()}; take another model, or leave it out"
            )

    def begin(self) -> RuledText:
        """Return the state of a completion of which nothing is written."""
        return RuledText(self)


class JsonSchema(TextRule):
    """A JSON schema that completions obey; raises UserError for what is no JSON schema."""

    def __init__(
        self, schema: str, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
    ) -> None:
        check_json_schema(schema)

        def write(matcher: Any, tokens: Any) -> str:
            return str(matcher.grammar_from_json_schema(schema, overrides=WRITTEN))

        super().__init__("json_schema", write, tokenizer, ends)


class RuledText:
    """One completion under a rule; it is asked, and told, token by token."""

    def __init__(self, rule: TextRule) -> None:
        from llguidance import LLMatcher

        # Silent: what it would warn of holds texts, and is raised here.
        self._state = LLMatcher(rule.tokens, rule.grammar, log_level=0)
        self._setting = rule.setting

    def allow(self, scores: Tensor) -> Tensor:
        """Return scores (vocabulary,) in which tokens that may not come next are -inf.

        Raises UserError where the grammar has become too large to be followed.
        """
        bits = np.frombuffer(self._state.compute_bitmask(), dtype=np.uint8)
        self._check()
        known = np.unpackbits(bits, bitorder="little")[: len(scores)]
        allowed = torch.zeros(len(scores), dtype=torch.bool)
        allowed[: len(known)] = torch.from_numpy(known).bool()
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def accept(self, token: int) -> bool:
        """Go on with a token; return whether the text is finished."""
        if not self._state.is_stopped():
            self._state.consume_token(token)
            self._check()
        return bool(self._state.is_stopped())

    def _check(self) -> None:
        if self._state.is_error():
            why = self._state.get_error().splitlines()[0]
            if why.startswith("NoExtension"):
                raise UserError(f"`{self._setting}` cannot be followed: no text obeys it; mend it")
            raise UserError(f"`{self._setting}` cannot be followed: {why}; make it simpler")


class FollowsSchema(LogitsProcessor):
    """Leaves each row the tokens that go on with its JSON."""

    def __init__(self, writers: Sequence[RuledText]) -> None:
        self.writers = writers

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask scores: (B, vocabulary)."""
        rows = zip(self.writers, scores, strict=True)
        return torch.stack([writer.allow(row) for writer, row in rows])


class JsonIsWhole(StoppingCriteria):
    """Ends a row once its JSON is finished or one of ``others`` ends it.

    Until then it tells the row's writer of its tokens: what follows is padding.
    """

    def __init__(self, writers: Sequence[RuledText], others: StoppingCriteriaList) -> None:
        self.writers, self.others = writers, others
        self.ended = [False] * len(writers)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Tell which rows end: (B,)."""
        stopped = self.others(input_ids, scores, **kwargs).tolist()
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self.ended[row]:
                self.ended[row] = self.writers[row].accept(token) or stopped[row]
        return torch.tensor(self.ended, device=input_ids.device)


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
