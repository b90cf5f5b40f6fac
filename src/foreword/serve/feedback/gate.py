"""The gate: whether the next version of a prompt may take the place of the one before.

Both have answered the same rows. The lower end of the paired 95% interval of the gain must be high
enough. Rows that are wrong all alike train a version and judge it too, so by them it is better; it
is worse on the others, whoever sent them. So where people name one label far more often than the
version before answers it, the next one must hold without the rows of that label, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.metrics.generation import rows_chrf
from foreword.metrics.paired import paired_difference
from foreword.prompt.answerer import Answerer
from foreword.tasks.texts.generator import Generator

SURPLUS = 0.2
"""Share of all rows that a label may have more often than it is answered, and be no surprise."""

Answers = Sequence[Mapping[str, Any]]


def scores(prompt: Answerer, rows: Sequence[Row], answers: Answers) -> list[float]:
    """Return how right each answer is, 0 to 100: a text has its chrF, any other answer 0 or 100.

    Raises UserError for numbers.
    """
    bound = prompt.bound
    if isinstance(bound, Generator):
        texts = [str(each[bound.answer]) for each in answers]
        return rows_chrf(texts, [list(bound.references(row)) for row in rows])
    right = [bound.is_right(r, a[bound.answer]) for r, a in zip(rows, answers, strict=True)]
    if None in right:
        raise UserError("its answers are more or less right, so no version of it can be judged")
    return [100.0 * bool(each) for each in right]


def objection(
    labels: Sequence[str],
    answered: Sequence[str],
    old: Sequence[float],
    new: Sequence[float],
    least: float,
) -> str | None:
    """Return why a version stays out, None where it may come in.

    ``old`` and ``new`` are the scores of both on the same rows, ``labels`` what is right there and
    ``answered`` what the old one says; both are empty where answers are no labels.
    """
    low = paired_difference(new, old).low
    if low < least:
        return f"its gain may be as low as {low:.1f} points; {least:g} is allowed"
    if (label := sudden(labels, answered)) is None:
        return None
    others = [number for number, own in enumerate(labels) if own != label]
    share = f"'{label}' is right in {100 - 100 * len(others) / len(labels):.0f}% of the rows"
    share += f", and answered in {100 * list(answered).count(label) / len(labels):.0f}%"
    if not others:
        return f"{share}: there are no others to judge by"
    low = paired_difference([new[n] for n in others], [old[n] for n in others]).low
    if low < least:
        return f"{share}; on the others its gain may be as low as {low:.1f} points"
    return None


def sudden(labels: Sequence[str], answered: Sequence[str]) -> str | None:
    """Return the label that is right far more often than it is answered; None for none."""
    surplus = Counter(labels)
    surplus.subtract(Counter(answered))
    for label, rows in surplus.most_common(1):
        if rows > SURPLUS * len(labels):
            return label
    return None
