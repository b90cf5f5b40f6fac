"""Questions that a file nests in their documents, as SQuAD and MRQA do: one row each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]


def questions(record: Record) -> Iterator[Record]:
    """Yield a row for each question of a document's ``paragraphs``, or of a passage's ``qas``.

    It has the fields of the question, of its passage and of its document. A record of another shape
    is yielded as it is.
    """
    for inner, within in (("paragraphs", "qas"), ("qas", "question")):
        parts = record.get(inner)
        if isinstance(parts, list) and parts and all(_has(within, part) for part in parts):
            rest = {name: value for name, value in record.items() if name != inner}
            for part in parts:
                yield from questions({**rest, **part})
            return
    yield record


def _has(within: str, part: Any) -> bool:
    """Tell whether a part holds a question, or a list of them."""
    found = part.get(within) if isinstance(part, Mapping) else None
    return isinstance(found, list) if within == "qas" else found is not None
