"""Text to token ids and back, with the tokenizer's own special tokens in their place."""

from __future__ import annotations

from functools import cached_property

from transformers import PreTrainedTokenizerBase

from foreword.backbone.chat_template import ChatTemplate


class Text:
    """A tokenizer as the rest of the house sees it: pieces in, ids out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """Return the ids of ``text`` alone, without special tokens around it."""
        if not text:
            return []
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def beginning(self, text: str, count: int) -> str:
        """Return the text of its first ``count`` tokens, as it is written.

        A character that the cut parts, one of several tokens, is left out whole.
        """
        if len(ids := self.ids(text)) <= count:
            return text
        if not self.tokenizer.is_fast:  # which do not tell where a token stands
            return self.decode(ids[:count]).strip("\ufffd")
        read = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        places = read["offset_mapping"]
        return text[: min(places[count - 1][1], places[count][0])]

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

    @cached_property
    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before and after a text."""
        bare = self.ids("a")
        whole = list(self.tokenizer("a", verbose=False)["input_ids"])
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return tuple(whole[:start]), tuple(whole[start + len(bare) :])
        return (), ()

    @property
    def end(self) -> int | None:
        """The id that ends a text, None where the tokenizer has none."""
        found: int | None = self.tokenizer.eos_token_id
        return found

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

    @property
    def mask(self) -> int | None:
        """The id of the mask token, None where the tokenizer has none."""
        found: int | None = self.tokenizer.mask_token_id
        return found
