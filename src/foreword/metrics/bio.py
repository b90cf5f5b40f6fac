"""The BIO scheme of tags: what may follow what, and the spans that they mark."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[str, int, int]
"""A type, its first word, and the word after its last."""


def is_bio(labels: Sequence[str]) -> bool:
    """Whether tags are of the BIO scheme: O, and B- or I- in front of a type, one B- at least."""
    kinds = {label[:2] for label in labels if label != "O"}
    return kinds <= {"B-", "I-"} and "B-" in kinds and all(len(name) != 2 for name in labels)


def follows(before: str, tag: str) -> bool:
    """Whether a tag may follow another: I-X only B-X or I-X, any other tag always."""
    return not tag.startswith("I-") or before in (f"B-{tag[2:]}", tag)


def spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence in the BIO scheme, as conlleval reads them.

    Tjong Kim Sang and De Meulder 2003: an I-X that goes on with nothing of its type begins a span.

    >>> spans(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    found: list[Span] = []
    before = "O"
    for place, tag in enumerate(tags):
        if tag.startswith("I-") and follows(before, tag):
            kind, start, _ = found[-1]
            found[-1] = (kind, start, place + 1)
        elif tag != "O":
            found.append((tag[2:], place, place + 1))
        before = tag
    return found
