"""What is timed: a method and its length, a task, a batch size, and the rows for it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from foreword.backbone.tokenizer import Text
from foreword.data.read import read_rows
from foreword.data.row import Row
from foreword.data.sample import first
from foreword.errors import UserError
from foreword.methods.base import Method
from foreword.methods.registry import METHODS
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate

REVIEWS = Path(__file__).parent.parent / "examples" / "reviews" / "train.jsonl"
LONG = (64, 250)
"""Tokens of a long row's text; with its template the row has up to ``LONGEST``."""

LONGEST = 256

_REVIEW = Classify(
    template="Review: {text}\nSentiment:",
    labels={"negative": " negative", "positive": " positive"},
    loss="vocabulary",  # PEFT's loss: cross-entropy over all tokens at the answer
)
_MEANING = Generate(template="Meaning: {prompt}\nText:")


@dataclass(frozen=True)
class Case:
    """One line of the table. ``long`` rows are made of review text; ``gpu`` ones want a GPU."""

    method: Literal["soft", "prefix"]
    length: int
    data: Literal["sst2", "e2e"] = "sst2"
    batch: int = 16
    long: bool = False

    @property
    def name(self) -> str:
        """The case's name, as it stands in the table and in the JSON."""
        front = "" if self.data == "sst2" else f"{self.data}-"
        return f"{front}{self.method}-{self.length}{'-long' if self.long else ''}"

    @property
    def task(self) -> Classify | Generate:
        """The task that both sides train for."""
        if self.data == "e2e":
            return _MEANING
        return replace(_REVIEW, max_length=LONGEST) if self.long else _REVIEW

    def make_method(self) -> Method:
        """Return Foreword's method, started as it starts by default."""
        return METHODS[self.method](length=self.length)  # type: ignore[call-arg]


CASES = {
    case.name: case
    for case in (
        Case("soft", 20),
        Case("soft", 100),
        Case("prefix", 20),
        Case("prefix", 100),
        Case("prefix", 20, data="e2e", batch=8),
        Case("prefix", 100, batch=32, long=True),  # by default on a GPU alone
    )
}


def rows_for(
    case: Case, files: Mapping[str, str | Path], batches: int, seed: int, text: Text
) -> list[Row]:
    """Return rows for at most so many whole batches, drawn from the case's file by the seed.

    Raises UserError for a file that cannot be read, or with fewer rows than a batch.
    """
    found = read_rows(files[case.data])
    if case.long:
        return _long(found, text, batches * case.batch, seed)
    most = min(batches, len(found) // case.batch) * case.batch
    if not most:
        raise UserError(
            f"{files[case.data]}: {len(found)} rows, and a batch of {case.name} has {case.batch}; "
            "give a longer file"
        )
    return first(found, most, seed)


def _long(rows: Sequence[Row], text: Text, count: int, seed: int) -> list[Row]:
    """Make rows of ``LONG`` tokens out of the texts of short ones, end to end."""
    chance = random.Random(seed)
    shortest, longest = LONG
    pool: list[int] = []
    while len(pool) < 50 * longest:
        pool += text.ids(f" {chance.choice(rows).fields['text']}")
    made = []
    for number in range(1, count + 1):
        start = chance.randrange(len(pool) - longest)
        words = text.decode(pool[start : start + chance.randint(shortest, longest)])
        label = str(chance.choice(rows).fields["label"])
        made.append(Row({"text": words, "label": label}, f"long:{number}"))
    return made
