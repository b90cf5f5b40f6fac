"""Answers that are partly right, of one seed."""

from __future__ import annotations

import random

LABELS = ["refund", "delivery", "other", "unused"]
VOCABULARY = [f"word{i}" for i in range(30)]


def labelled(rows: int, seed: int = 0, right: float = 0.7) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    gold = rng.choices(LABELS[:3], weights=[5, 3, 1], k=rows)
    return gold, [label if rng.random() < right else rng.choice(LABELS[:3]) for label in gold]


def written(rows: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Predictions, and one to four references each; the last word is right in most rows."""
    rng = random.Random(seed)
    references = [
        [" ".join(rng.choices(VOCABULARY, k=rng.randint(4, 12))) for _ in range(rng.randint(1, 4))]
        for _ in range(rows)
    ]
    predictions = [
        " ".join(w if rng.random() < keep else rng.choice(VOCABULARY) for w in row[0].split())
        for row, keep in zip(references, rng.choices([1.0, 0.6], k=rows), strict=True)
    ]
    return predictions, references


def streams(references: list[list[str]]) -> list[list[str | None]]:
    most = max(map(len, references))
    return [[row[i] if i < len(row) else None for row in references] for i in range(most)]
