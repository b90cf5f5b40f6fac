"""Rounds of sampling: which labels to ask for, and which texts to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.backbone.decode import Decoding
from foreword.config.settings import setting
from foreword.errors import UserError

AT_ONCE = 32
"""Texts sampled in a round; the file is written after each."""


@dataclass(frozen=True)
class Augment:
    """How many rows to add, the same number for each label, and how to sample them.

    The writer is given the label and ``keywords`` rare words of the given texts (PromDA's input
    view); with 0, the label alone (its output view). A text is one line of at most
    ``max_new_tokens``. At most ``tries`` texts are sampled for each row wanted.
    """

    count: int = setting(100, help="new rows, the same number of each label", common=True)
    keywords: int = setting(2, help="words of the rows that a new one is asked for")
    temperature: float = setting(1.0, help="sampling temperature", common=True)
    top_p: float = setting(0.9, help="sample among the likeliest tokens of this probability")
    max_new_tokens: int = setting(64, help="most tokens of a text")
    tries: int = setting(10, help="most texts that are sampled for each row wanted")
    seed: int = setting(0, help="seed of the sampling")

    def check(self) -> None:
        """Raise UserError for numbers that cannot be."""
        for name, low in (("count", 1), ("keywords", 0), ("tries", 1)):
            if getattr(self, name) < low:
                raise UserError(f"`{name}={getattr(self, name)}`: give {low} or more")
        if self.temperature <= 0:
            raise UserError(f"`temperature={self.temperature:g}`: texts differ only above 0")
        self.decoding(0).check()

    def decoding(self, number: int) -> Decoding:
        """Return how the texts of a round are sampled."""
        return Decoding(
            self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=("\n",),
            seed=self.seed * 1_000_003 + number,
        )

    def wanted(self, labels: Sequence[str]) -> Counter[str]:
        """Return how many rows to add for each label."""
        each, more = divmod(self.count, len(labels))
        return Counter({label: each + (n < more) for n, label in enumerate(labels)})


def plan_rounds(
    found: list[dict[str, Any]], wanted: Counter[str], settings: Augment
) -> Iterator[tuple[int, list[str]]]:
    """Yield each round's number and the labels to ask for, until every label has enough texts.

    The caller adds each round's texts to ``found``; a run that was stopped continues from it.
    """
    number = 1 + max((each["round"] for each in found), default=-1)
    while True:
        have = Counter(each["label"] for each in found if each["dropped"] is None)
        tried = Counter(each["label"] for each in found)
        lacking = [
            label
            for label, count in wanted.items()
            if have[label] < count and tried[label] < count * settings.tries
        ]
        if not lacking:
            return
        yield number, [lacking[n % len(lacking)] for n in range(AT_ONCE)]
        number += 1


def select_kept(
    found: Sequence[Mapping[str, Any]], wanted: Counter[str]
) -> list[Mapping[str, Any]]:
    """Return the accepted texts: the first ones of each label, up to the number wanted."""
    have: Counter[str] = Counter()
    made = []
    for each in found:
        if each["dropped"] is None and have[each["label"]] < wanted[each["label"]]:
            have[each["label"]] += 1
            made.append(each)
    return made
