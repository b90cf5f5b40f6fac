"""Numbers that are published, and tables of records beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

E2E = {
    "prefix, GPT-2 Medium, 355M (Li and Liang 2021)": 69.7,
    "fine-tuning, GPT-2 Medium, 355M (ibid.)": 68.2,
    "LoRA, GPT-2 Medium, 355M (Hu et al. 2021)": 70.4,
}
"""BLEU on the official test set."""


def tables(records: Sequence[Record]) -> Iterator[str]:
    """Yield the lines of a table for each of the papers' tables that has records."""
    for table in dict.fromkeys(each["table"] for each in records):
        own = [each for each in records if each["table"] == table]
        score = "bleu" if table == "e2e" else "accuracy"
        yield f"| {table} | {score} (95% interval) | trained numbers | settings |"
        yield "|---|---|---|---|"
        for each in own:
            low, high = each["interval"]
            settings = ", ".join(f"{name} {value}" for name, value in each["settings"].items())
            yield (
                f"| {each['method']}, {each['model']} | {each[score]:.1f} ({low:.1f} to {high:.1f})"
                f" | {each['trained']:,} | {settings} |"
            )
        for name, value in (E2E if table == "e2e" else {}).items():
            yield f"| {name} | {value} | | published |"
        yield ""
