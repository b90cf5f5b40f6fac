"""Rows turned round: a label and keywords are read, and the text is what is learned."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from foreword.data.row import Row
from foreword.metrics.words import words


def reverse_rows(
    train: Sequence[Row], field: str, label_field: str, said: Mapping[str, str], keywords: int
) -> list[Row]:
    """Turn rows round: ``label`` as it is ``said``, ``keywords``, the text as ``completion``.

    ``own`` is the label itself. Texts stand on one line.
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
    """Yield rows with their keywords: the words of the fewest rows, longer ones before others."""
    bags = [list(dict.fromkeys(words(str(row.fields[field])))) for row in train]
    seen = Counter(word for bag in bags for word in bag)
    for row, bag in zip(train, bags, strict=True):
        rare = set(sorted(bag, key=lambda word: (seen[word], -len(word)))[:keywords])
        yield row, [word for word in bag if word in rare]


def make_requests(
    rows: Sequence[Row], asked: Sequence[str], said: Mapping[str, str], keywords: int, seed: str
) -> list[Row]:
    """Return requests for labels: the keywords of each are drawn from all turned rows of it."""
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
