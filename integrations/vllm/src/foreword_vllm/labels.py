"""Probabilities of labels, from the scores of the tokens that spell their words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST = 20
"""Tokens whose scores vLLM gives in one request, by default."""


@dataclass(frozen=True)
class Question:
    """The scores that one request asks for: those of ``tokens`` after a row and ``path``."""

    node: int
    path: tuple[int, ...]
    tokens: tuple[int, ...]


def questions(answer: Mapping[str, Any]) -> Iterator[Question]:
    """Yield what must be asked of a row to score all labels."""
    for node, (path, tokens) in enumerate(zip(answer["nodes"], answer["children"], strict=True)):
        for start in range(0, len(tokens), MOST):
            yield Question(node, tuple(path), tuple(tokens[start : start + MOST]))


def probabilities(
    answer: Mapping[str, Any], scores: Sequence[Mapping[int, float]]
) -> dict[str, float]:
    """Return each label's probability, given the log-probabilities of tokens at each node.

    Where words part, those that go on share all probability among them, unless the prompt was tuned
    over the whole vocabulary: then they have theirs in it. A label has that of all its words.
    """
    logs = [
        [float(own[token]) for token in tokens]
        for own, tokens in zip(scores, answer["children"], strict=True)
    ]
    if not answer["vocabulary"]:
        logs = [[each - log_sum(own) for each in own] for own in logs]
    words: list[list[float]] = [[] for _ in answer["labels"]]
    for label, steps in answer["words"]:
        words[label].append(sum(logs[node][child] for node, child in steps))
    sums = [log_sum(own) for own in words]
    whole = log_sum(sums)
    return {name: math.exp(each - whole) for name, each in zip(answer["labels"], sums, strict=True)}


def log_sum(values: Sequence[float]) -> float:
    """Return the logarithm of the summed exponentials."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(each - top) for each in values))
