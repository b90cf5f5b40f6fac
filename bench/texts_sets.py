"""The sets of bench/texts.py: rows to train on and to test on, and how they are learned."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rows import slots

import foreword as fw
from foreword.data.row import Row

UNTOUCHED, SHOWN, MANUAL = "untouched", "demonstrations", "manual in context"
SHOP = Path(__file__).parent.parent / "examples/shop"

Sides = tuple[Sequence[Row], Sequence[Row]]
"""Rows to train on, and to test on."""


@dataclass(frozen=True)
class Set:
    """Rows of a task, read by ``sides`` from the folder of data sets, and how they are learned.

    ``own`` are settings of one method.
    """

    task: str
    sides: Callable[[Path], Sides]
    rows: int
    test_rows: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    systems: Sequence[str] = (UNTOUCHED, SHOWN)


def shop(data: Path) -> Sides:
    """Return two questions about each of a shop's twenty rules, and a third one."""
    train, test = (fw.read_rows(SHOP / f"{name}.jsonl") for name in ("train", "test"))
    return train, test


def dialogues(data: Path) -> Sides:
    """Part SGD's training rows by dialogue: its own test rows are of other services.

    A dialogue is told by how it begins; a fifth of them are tested.
    """
    rows = fw.read_rows(data / "sgd/train.jsonl")
    begins = sorted({_begin(row) for row in rows})
    random.Random(0).shuffle(begins)
    held = set(begins[: len(begins) // 5])
    return (
        [row for row in rows if _begin(row) not in held],
        [row for row in rows if _begin(row) in held],
    )


def _begin(row: Row) -> str:
    return str(row.fields["messages"][0]["content"])


def summaries(data: Path) -> Sides:
    """Return abstracts with their one-sentence summaries."""
    train, test = (fw.read_rows(data / f"scitldr/{name}.jsonl") for name in ("train", "test"))
    return train, test


def restaurant_slots(data: Path) -> Sides:
    """Part sentences about restaurants, with the attributes that they name.

    Both sides are of E2E's training rows: its test rows name other attributes than their sentences
    say (all of them "eatType", as half of the training rows do).
    """
    rows = [
        Row(slots(dict(row.fields)), row.where) for row in fw.read_rows(data / "e2e/train.jsonl.gz")
    ]
    random.Random(0).shuffle(rows)
    return rows[1000:], rows[:1000]


def topics(data: Path) -> Sides:
    """Return texts of two news each, with the topics of both: one label or two of four."""
    train, test = (
        _pairs(fw.read_rows(data / f"ag_news/{name}.jsonl")) for name in ("train", "test")
    )
    return train, test


def _pairs(rows: Sequence[Row]) -> list[Row]:
    mixed = random.Random(0).sample(rows, len(rows))
    return [
        Row(
            {
                "text": f"{one.fields['text']}\n{other.fields['text']}",
                "labels": sorted({str(one.fields["label"]), str(other.fields["label"])}),
            },
            one.where,
        )
        for one, other in zip(mixed[::2], mixed[1::2], strict=False)
    ]


CHAT = {"max_length": 512, "max_new_tokens": 48}
SETS: Mapping[str, Set] = {
    "shop": Set(
        "chat",
        shop,
        40,
        20,
        CHAT,
        {"epochs": 12, "batch_size": 4},
        {"prefix": {"rate": 0.015}},
        (UNTOUCHED, SHOWN, MANUAL),
    ),
    "dialogues": Set("chat", dialogues, 200, 100, CHAT, {"epochs": 2, "batch_size": 8}),
    "summaries": Set(
        "summarize",
        summaries,
        160,
        60,
        {
            "source_field": "prompt",
            "target_field": "completion",
            "max_length": 384,
            "max_new_tokens": 40,
        },
        {"epochs": 2, "batch_size": 8},
    ),
    "slots": Set(
        "multilabel",
        restaurant_slots,
        320,
        150,
        {
            "labels": {
                "area": "area",
                "customer rating": "rating",
                "eatType": "type",
                "familyFriendly": "family",
                "food": "food",
                "near": "near",
                "priceRange": "price",
            }
        },
        {"epochs": 2, "batch_size": 8},
    ),
    "topics": Set("multilabel", topics, 320, 150, {}, {"epochs": 2, "batch_size": 8}),
}
"""What is run; the rows of a set are drawn with the seed, test rows always with 0."""
