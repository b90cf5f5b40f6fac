"""The writer: tokens of one completion as text that can be told before it is finished."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.backbone.backbone import Backbone
from foreword.backbone.decode import completion
from foreword.backbone.decoding_rules import StopTexts
from foreword.backbone.tokenizer import Text


class GrowingText:
    """The text of a list of tokens that grows."""

    def __init__(self, text: Text, tokens: list[int]) -> None:
        self.text, self.tokens = text, tokens
        self._first = self._read = 0  # tokens whose text is known, but for where the next begin

    def more(self) -> str:
        """Return text that was not told before and stays, whatever comes next."""
        before = self.text.decode(self.tokens[self._first : self._read])
        now = self.text.decode(self.tokens[self._first :])
        if now.endswith("\ufffd"):  # a character whose bytes are not all there
            return ""
        if len(now) > len(before):  # else the next begin where these do
            self._first = self._read
        self._read = len(self.tokens)
        return now[len(before) :]


class Writer:
    """The text of a completion that grows by tokens, up to a text that ends it."""

    def __init__(self, backbone: Backbone, stop: Sequence[str]) -> None:
        self.backbone, self.stop = backbone, tuple(stop)
        self.tokens: list[int] = []
        self.told = ""
        self._stops = StopTexts(backbone.text, stop, 0) if stop else None
        self._text = GrowingText(backbone.text, self.tokens)
        self._kept = ""

    def add(self, token: int) -> bool:
        """Go on with a token; return whether a text that ends the completion stands there now."""
        self.tokens.append(token)
        return self._stops is not None and self._stops.ends(self.tokens)

    def more(self) -> str:
        """Return text that was not told before and stays, whatever comes next."""
        self._kept += self._text.more()
        sure = len(self._kept) - self._held_back()
        told, self._kept = self._kept[:sure], self._kept[sure:]
        self.told += told
        return told

    def whole(self) -> str:
        """Return the text of the completion."""
        return completion(self.backbone, self.tokens, self.stop)

    def rest(self, whole: str) -> str:
        """Return what is left to tell of the whole text."""
        return whole[len(self.told) :]

    def _held_back(self) -> int:
        """Return how much of the text's end may be the beginning of one that ends it."""
        longest = max(map(len, self.stop), default=1) - 1
        for size in range(min(longest, len(self._kept)), 0, -1):
            if any(stop.startswith(self._kept[-size:]) for stop in self.stop):
                return size
        return 0
