"""Measures of a compression: the cartridge beside the whole text, its beginning, and nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class InFront:
    """How the model goes on with something in front of the questions that were held back.

    ``kl`` is the divergence from the full text in nats per token, ``top1`` how many of 100 tokens
    are followed by the same likeliest token. ``answers`` is the ROUGE-L of its answers, with its
    95% interval. ``bytes`` is the size of its keys and values, ``first_token_seconds`` the time to
    the first token of an answer. None is what is not measured.
    """

    kl: float | None = None
    top1: float | None = None
    answers: float | None = None
    interval: tuple[float, float] | None = None
    bytes: int | None = None
    first_token_seconds: float | None = None


@dataclass(frozen=True)
class Questions:
    """How many questions were learned from, chose the best state, and were held back."""

    train: int
    dev: int
    test: int


@dataclass(frozen=True)
class Measures:
    """How close a cartridge of ``length`` positions comes to its text of ``tokens`` tokens.

    ``truncated`` is the text cut to as many positions, ``none`` nothing. Answers are scored against
    the ``reference``: the given answers if all questions have one, or else those after the full
    text.
    """

    tokens: int
    length: int
    questions: Questions
    reference: Literal["full text", "given"]
    cartridge: InFront
    truncated: InFront
    none: InFront
    full: InFront

    @property
    def ratio(self) -> float:
        """The number of tokens that a position stands for."""
        return round(self.tokens / self.length, 2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them and the prompt file keeps them."""
        asked = self.questions
        made: dict[str, Any] = {"tokens": self.tokens, "length": self.length, "ratio": self.ratio}
        made["questions"] = {"train": asked.train, "dev": asked.dev, "test": asked.test}
        own, cut, none, full = self.cartridge, self.truncated, self.none, self.full
        for name, each in (("", own), ("_truncated", cut), ("_none", none)):
            made |= {f"kl{name}": each.kl, f"top1{name}": each.top1}
        answers = {"answers": own, "answers_truncated": cut, "answers_full": full}
        return {
            **made,
            "reference": self.reference,
            **{name: each.answers for name, each in answers.items()},
            "intervals": {name: list(each.interval or ()) for name, each in answers.items()},
            "bytes": own.bytes,
            "bytes_full": full.bytes,
            "first_token_seconds": own.first_token_seconds,
            "first_token_seconds_full": full.first_token_seconds,
        }
