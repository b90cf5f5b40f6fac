"""Evaluation: the scores of answers to rows, with the rows and the answers themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.data.row import Row

TABLES = ("confusion", "per_class", "baselines")
"""What is left out of a prompt's file: tables of many labels, and other evaluations."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Mapping[str, Any]):
    """Scores of a task on rows. As a mapping, it is the plain values that ``--json`` prints.

    ``headline`` names the score that counts most; ``data`` are the rows, and ``answers`` the
    objects that ``predict`` gives for them, in the same order.
    """

    headline: str
    plain: Mapping[str, Any]
    data: Sequence[Row]
    answers: Sequence[Mapping[str, Any]]

    def __getitem__(self, key: str) -> Any:
        return self.plain[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"Evaluation({self.headline}={self.score:.2f} ({low:.2f} to {high:.2f}), "
            f"rows={len(self.data)})"
        )

    @property
    def score(self) -> float:
        """The headline score."""
        return float(self.plain[self.headline])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% bootstrap interval of the headline score."""
        low, high = self.intervals[self.headline]
        return low, high

    @property
    def scores(self) -> dict[str, float]:
        """All scores that have an interval, by name."""
        return {name: self.plain[name] for name in self.intervals}

    @property
    def intervals(self) -> Mapping[str, Sequence[float]]:
        """The 95% bootstrap intervals of the scores, by name."""
        intervals: Mapping[str, Sequence[float]] = self.plain["intervals"]
        return intervals

    @property
    def truncated(self) -> int:
        """How many rows were too long and lost text."""
        return int(self.plain["cut"])

    @property
    def in_train(self) -> int | None:
        """How many rows have a text of the training rows; None where these are not known."""
        return self.plain.get("in_train")

    @property
    def baselines(self) -> Mapping[str, Mapping[str, Any]]:
        """The scores of the frozen model by itself, by name; empty where not asked for."""
        baselines: Mapping[str, Mapping[str, Any]] = self.plain.get("baselines", {})
        return baselines

    @property
    def per_label(self) -> Mapping[str, Mapping[str, float]] | None:
        """Precision, recall, F1 and number of rows of each label; None for other tasks."""
        return self.plain.get("per_class")

    @property
    def confusion(self) -> Mapping[str, Any] | None:
        """The confusion matrix, ``labels`` by ``labels``; None where there is none."""
        return self.plain.get("confusion")

    def without_tables(self) -> dict[str, Any]:
        """Return what a prompt's file keeps: the plain values without tables and baselines."""
        return without_tables(self.plain)


def without_tables(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain scores without the tables of many labels, and without baselines."""
    return {key: value for key, value in scores.items() if key not in TABLES}
