"""Rows for the writer: a label and keywords are the input, and the text is the completion."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from foreword.data.row import Row
from foreword.metrics.words import words


def reverse_rows(
    train: Sequence[Row], field: str, label_field: str, said: Mapping[str, str], keywords: int
) -> list[Row]:
    """Return rows from which to learn to write: ``label``, ``keywords`` and ``completion``.

    ``label`` is the word that ``said`` gives for it, and ``own`` the label itself. The text is
    put on one line.
    """
    made = []
    for row, keys in _with_keywords(train, field, keywords):
        label, text = str(row.fields[label_field]), " ".join(str(row.fields[field]).split())
        fields = {"label": said[label], "keywords": ", ".join(keys), "completion": text}
        made.append(Row({**fields, "own": label}, row.where))
    return made


def _with_keywords(
    train: Sequence[Row], field: str, keywords: int
) -> Iterator[tuple[Row, list[str]]]:
    """Yield each row with its keywords: the words found in the fewest rows, longest first.

    Of a text of signs alone its pieces between spaces stand for words.
    """
    texts = [str(row.fields[field]) for row in train]
    bags = [list(dict.fromkeys(words(text) or text.split())) for text in texts]
    seen = Counter(word for bag in bags for word in bag)
    for row, bag in zip(train, bags, strict=True):
        rare = set(sorted(bag, key=lambda word: (seen[word], -len(word)))[:keywords])
        yield row, [word for word in bag if word in rare]


def make_requests(
    rows: Sequence[Row], asked: Sequence[str], said: Mapping[str, str], keywords: int, seed: str
) -> list[Row]:
    """Return one request per label; its keywords are sampled from all writer rows of that label."""
    chance = random.Random(seed)
    pools: dict[str, set[str]] = {label: set() for label in asked}
    for row in rows:
        if row.fields["own"] in pools:
            pools[row.fields["own"]].update(filter(None, row.fields["keywords"].split(", ")))
    made = []
    for place, label in enumerate(asked, 1):
        pool = sorted(pools[label])
        keys = chance.sample(pool, min(keywords, len(pool)))
        fields = {"label": said[label], "keywords": ", ".join(keys), "own": label}
        made.append(Row(fields, f"request {seed}.{place}"))
    return made
