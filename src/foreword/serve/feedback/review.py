"""Answers that wait for a look: those of which the prompt was least sure."""

from __future__ import annotations

import secrets
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from foreword.errors import UserError
from foreword.metrics.resample import proportion
from foreword.serve.feedback.files import ABOUT

MOST = 100
"""Answers of a prompt that wait; beyond that the surest is forgotten."""

OFTEN = 3
"""Rows with a label that a prompt does not know, after which it is offered as a new one."""


class UnknownAnswerError(UserError):
    """No answer of this id waits for a look."""


@dataclass(frozen=True, order=True)
class Waiting:
    """An answer that nobody has looked at yet, and how probable the prompt took it to be."""

    probability: float
    id: str
    version: str = field(compare=False)
    fields: Mapping[str, Any] = field(compare=False)
    answer: Any = field(compare=False)
    probabilities: Mapping[str, float] | None = field(compare=False)


class Review:
    """The answers that wait, by prompt, in memory alone; it may be used from any thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Waiting]] = {}
        self._lock = Lock()

    def offer(
        self,
        version: str,
        fields: Mapping[str, Any],
        answer: Any,
        probability: float,
        probabilities: Mapping[str, float] | None = None,
    ) -> None:
        """Let an answer of ``name@version`` wait, if it is among the least sure of its prompt."""
        made = Waiting(probability, secrets.token_hex(8), version, fields, answer, probabilities)
        with self._lock:
            waiting = self._waiting.setdefault(version.partition("@")[0], [])
            if all(each.fields != fields for each in waiting):
                insort(waiting, made)
                del waiting[MOST:]

    def waiting(self, name: str, count: int) -> list[Waiting]:
        """Return the answers of a prompt that were least sure, the least sure one first."""
        with self._lock:
            return self._waiting.get(name, [])[:count]

    def find(self, name: str, id: str) -> Waiting:
        """Return an answer that waits; raises UnknownAnswerError where there is none."""
        with self._lock:
            for each in self._waiting.get(name, []):
                if each.id == id:
                    return each
        raise UnknownAnswerError(
            f"no answer '{id[:100]}' of {name} waits for a look; ask for others"
        )

    def done(self, name: str, id: str) -> None:
        """Forget an answer that was looked at."""
        with self._lock:
            self._waiting[name] = [w for w in self._waiting.get(name, []) if w.id != id]


def accuracy_by_day(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how many reviewed answers were right, by day (UTC) and version, in order of time.

    ``interval`` is the 95% interval of ``accuracy``, in percent.
    """
    right: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        about = row[ABOUT]
        if about.get("reviewed") and "right" in about:
            day = str(about["time"])[: len("2026-01-01")]
            right.setdefault((day, about["version"]), []).append(bool(about["right"]))
    made = []
    for (day, version), each in right.items():
        found = proportion(sum(each), len(each))
        made.append(
            {
                "day": day,
                "version": version,
                "rows": len(each),
                "accuracy": round(found.value, 2),
                "interval": found.bounds(),
            }
        )
    return made


def new_labels(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the labels that people have added often, the most frequent one first."""
    counts: dict[str, int] = {}
    for row in rows:
        if (label := row[ABOUT].get("new_label")) is not None:
            counts[label] = counts.get(label, 0) + 1
    often = sorted(((-n, label) for label, n in counts.items() if n >= OFTEN))
    return [{"label": label, "rows": -n} for n, label in often]
