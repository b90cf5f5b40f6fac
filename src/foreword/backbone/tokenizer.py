"""Text to token ids and back, with the tokenizer's own special tokens in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from foreword.backbone.chat_template import ChatTemplate
from foreword.errors import UserError


class NoEmbeddingError(UserError):
    """A token of a text that the model has no embedding for; ``where`` names the text."""

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(message if where is None else f"{where}: {message}")
        self.message, self.where = message, where


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Name the row or the file whose text is read, for a token of it that cannot be."""
    try:
        yield
    except NoEmbeddingError as error:
        raise NoEmbeddingError(error.message, error.where or where) from None


def begins_with(ids: Sequence[int], first: Sequence[int]) -> bool:
    """Whether a text writes the tokenizer's first tokens itself, which then stand once."""
    return bool(first) and tuple(ids[: len(first)]) == tuple(first)


_BYTE = re.compile("<0x([0-9A-F]{2})>")
_BYTES = {sign: byte for byte, sign in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
"""How names of tokens spell bytes, in the two kinds of tokenizers that do."""

_WORD = 32
"""The most tokens of a word that are left out so that a text begins with a whole one."""


class Text:
    """A tokenizer as the rest of the house sees it: pieces in, ids out.

    ``embedded`` is the number of tokens that the model has embeddings for. A tokenizer may have
    more, and ids from there on stand for virtual tokens, so that none of its may pass.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, embedded: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.embedded = embedded

    def ids(self, text: str) -> list[int]:
        """Return the ids of ``text`` alone, without special tokens around it.

        Raises UserError for a token without an embedding, and for text that has no tokens.
        """
        return self._read(text, around=False) if text else []

    def body(self, text: str) -> list[int]:
        """Return the ids of ``text`` without the tokenizer's first tokens, if it writes these."""
        ids, first = self.ids(text), self.around[0]
        return ids[len(first) :] if begins_with(ids, first) else ids

    def _read(self, text: str, *, around: bool) -> list[int]:
        try:
            read = self.tokenizer(text, add_special_tokens=around, verbose=False)
        except Exception as error:  # a tokenizer without an unknown token raises just that
            if type(error) is not Exception:
                raise
            raise NoEmbeddingError(f"the tokenizer cannot read {text[:40]!r} ({error})") from None
        return [self._checked(token) for token in read["input_ids"]]

    def _checked(self, token: int | None) -> int:
        """Return a token's id; raises UserError where the model has no embedding for it."""
        if token is None:
            raise NoEmbeddingError("the tokenizer has no token for a part of the text")
        if self.embedded is not None and not 0 <= token < self.embedded:
            name = self.tokenizer.convert_ids_to_tokens(token)
            raise NoEmbeddingError(
                f"token {name!r} (id {token}) is beyond the model's {self.embedded} embeddings; "
                "save the model after `model.resize_token_embeddings(len(tokenizer))`, or use its "
                "own tokenizer"
            )
        return token

    def beginning(self, text: str, count: int) -> str:
        """Return the text of its first ``count`` tokens, as it is written.

        A character that the cut parts, one of several tokens, is left out whole.
        """
        return self.part(text, 0, count)

    def ending(self, text: str, count: int) -> str:
        """Return the text of its last ``count`` tokens, or of fewer, as it is written.

        It begins where it reads as the same tokens alone: no word is parted whose rest would be
        another token, as in tokenizers that mark where words begin.
        """
        ids = self.ids(text)
        start = max(0, len(ids) - count)
        parts = []
        for first in range(start, min(start + _WORD, len(ids))):
            parts.append(self.part(text, first, len(ids)))
            if self.ids(parts[-1]) == ids[first:]:
                return parts[-1]
        return parts[0] if parts else ""

    def part(self, text: str, start: int, stop: int) -> str:
        """Return the text of the tokens from ``start`` up to ``stop``, as it is written.

        Names of special tokens stay, and characters that a cut parts are left out.
        """
        if start <= 0 and len(self.ids(text)) <= stop:
            return text
        if start >= stop:
            return ""
        if not self.tokenizer.is_fast:  # which do not tell where a token stands
            ids = self.ids(text)[max(0, start) : stop]
            return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip(
                "\ufffd"
            )
        read = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        places = [(0, 0), *read["offset_mapping"], (len(text), len(text))]
        start, stop = min(start, len(places) - 2), min(stop, len(places) - 2)
        while start < stop and places[start + 1][0] < places[start][1]:
            start += 1
        first = places[start][1] if start > 0 else 0
        last = len(text) if stop == len(places) - 2 else min(places[stop][1], places[stop + 1][0])
        return text[first : max(first, last)]

    def placed(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of ``text``, and from where to where in it each one stands.

        Raises UserError for a tokenizer that does not tell.
        """
        if not self.tokenizer.is_fast:
            raise UserError(
                "the tokenizer does not tell where a token stands; save the folder with a fast one "
                "(`AutoTokenizer.from_pretrained(...).save_pretrained(...)`)"
            )
        read = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [self._checked(token) for token in read["input_ids"]], list(read["offset_mapping"])

    def continuation(self, left: str, text: str) -> list[int]:
        """Return the ids of ``text`` as they follow ``left``.

        Tokenizers of the SentencePiece kind mark the start of a string, so that a piece alone
        and the same piece after other text differ. Where the two do not split at the seam, the
        ids of ``text`` alone are the best there is.
        """
        before, both = self.ids(left), self.ids(left + text)
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
        return self.ids(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids`` without special tokens."""
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def spelled(self, token: int) -> str:
        """Return a token as it stands inside a text, special ones by their names."""
        before, size = self._before
        ids = [*before, token]
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))[size:]

    @cached_property
    def _before(self) -> tuple[list[int], int]:
        """A text for a token to stand behind, as many tokenizers leave out a first space."""
        ids = self.ids("a")
        return ids, len(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def spelled_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, also where they are no whole character."""
        spelled = self.spelled(token)
        name = str(
            self.tokenizer.convert_ids_to_tokens([token])[0] or ""
        )  # the model may have more
        if match := _BYTE.fullmatch(name):
            return bytes.fromhex(match[1])
        if "\ufffd" in spelled and _BYTES.keys() >= set(name):
            return bytes(_BYTES[sign] for sign in name)
        return spelled.encode()

    @cached_property
    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before and after a text."""
        bare = self.ids("a")
        whole = self._read("a", around=True)
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return tuple(whole[:start]), tuple(whole[start + len(bare) :])
        return (), ()

    @property
    def end(self) -> int | None:
        """The id that ends a text, None where the tokenizer has none."""
        found: int | None = self.tokenizer.eos_token_id
        return None if found is None else self._checked(found)

    @cached_property
    def chat(self) -> ChatTemplate | None:
        """The tokenizer's chat template, None where it has none."""
        return None if self.tokenizer.chat_template is None else ChatTemplate(self.tokenizer)

    @cached_property
    def turn_end(self) -> tuple[int, ...]:
        """The ids that end the assistant's turn in a chat: what stands before a token, and it.

        The token is the special one that the chat template writes after the turn. Without a chat
        template, and where it writes none, it is the one that ends a text.
        """
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        ids = self.ids(self.chat.closing) if self.chat else []
        for size, token in enumerate(ids, 1):
            if token in special:
                return tuple(ids[:size])
            if self.decode([token]).strip():
                break
        return () if self.end is None else (self.end,)

    @cached_property
    def turn_mark(self) -> str | None:
        """The text of the token that ends a turn, None where the chat template writes none."""
        mark = self.tokenizer.convert_ids_to_tokens(list(self.turn_end[-1:]))
        return mark[0] if mark and self.chat and mark[0] in self.chat.closing else None

    @cached_property
    def after_turn(self) -> str:
        """What a chat has after the assistant's words where another turn follows."""
        mark = self.turn_mark
        if self.chat is None or mark is None:
            return f"{self.tokenizer.eos_token or ''}\n"
        left, _, right = self.chat.closing.partition(mark)
        return left + mark + right[: len(right) - len(right.lstrip())]

    def without_special(self, text: str) -> str:
        """Return a text as it reads where the model has written it."""
        return self.decode(self.ids(text))

    @cached_property
    def first(self) -> str:
        """The special tokens that the tokenizer puts before a text, as text."""
        return str(self.tokenizer.decode(list(self.around[0])))

    @property
    def mask(self) -> int | None:
        """The id of the mask token, None where the tokenizer has none."""
        found: int | None = self.tokenizer.mask_token_id
        return None if found is None else self._checked(found)
