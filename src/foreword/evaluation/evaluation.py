"""Evaluation: the scores of answers to rows, with the rows and the answers themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from foreword.data.row import Row
from foreword.display.tables import html_of
from foreword.display.tables import scores as scores_table
from foreword.errors import UserError, nearest
from foreword.html import html_table
from foreword.metrics.resample import Interval, bootstrap

TABLES = ("confusion", "per_class", "baselines")
"""What is left out of a prompt's file: tables of many labels, and other evaluations."""

WRONG = 5
"""Rows that were answered wrongly, of those that a notebook shows."""


@dataclass(frozen=True)
class Answered:
    """A row and the answer to it: ``text`` is what its fields say, ``gold`` the right answer.

    ``probability`` is that of the answer, None where answers have none. ``right`` is None where
    answers are more or less right, as numbers are. ``prediction`` is all that ``predict`` says.
    """

    text: str
    gold: Any
    answer: Any
    probability: float | None
    right: bool | None
    row: Row = field(repr=False)
    prediction: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Mapping[str, Any]):
    """Scores of a task on rows, and the rows with their answers.

    ``headline`` names the score that counts most, ``rows`` are the rows in their order, and
    ``baselines`` what else was scored on them, by name. As a mapping it is the plain values that
    ``--json`` prints.
    """

    headline: str
    plain: Mapping[str, Any]
    rows: Sequence[Answered]
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)

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
            f"rows={len(self.rows)})"
        )

    def _repr_html_(self) -> str:
        """Show the scores, and the first rows that were answered wrongly, in a notebook."""
        shown = html_of(scores_table(self, "prompt"))
        wrong = [(row.text[:200], row.gold, row.answer) for row in self.wrong[:WRONG]]
        if not wrong:
            return shown
        said = f"<p>{len(self.wrong)} of {len(self.rows)} rows were answered wrongly:</p>"
        return f"{shown}{said}{html_table(('text', 'gold', 'answer'), wrong)}"

    @property
    def wrong(self) -> list[Answered]:
        """The rows that were answered wrongly."""
        return [row for row in self.rows if row.right is False]

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame of the rows: text, gold, answer, probability and right."""
        import pandas

        names = ("text", "gold", "answer", "probability", "right")
        return pandas.DataFrame({name: [getattr(r, name) for r in self.rows] for name in names})

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

    def lead(self, baseline: str, seed: int = 0) -> Interval | None:
        """Return how many more of 100 rows are answered right than by a baseline.

        Rows are drawn in pairs, one answered by each. None where answers are more or less right.
        """
        if baseline not in self.baselines:
            raise UserError(
                f"no baseline '{baseline}' was scored; {nearest(baseline, self.baselines)}; give "
                "`baselines=True`, and for the probe the training rows"
            )
        pairs = zip(self.rows, self.baselines[baseline].rows, strict=True)
        gains = [(own.right, other.right) for own, other in pairs]
        known = [float(a) - float(b) for a, b in gains if a is not None and b is not None]
        return bootstrap(known, seed) if known else None

    @property
    def per_label(self) -> Mapping[str, Mapping[str, float]] | None:
        """Precision, recall, F1 and number of rows of each label; None for other tasks."""
        return self.plain.get("per_class")

    @property
    def confusion(self) -> Mapping[str, Any] | None:
        """The confusion matrix, ``labels`` by ``labels``; None where there is none."""
        return self.plain.get("confusion")

    def with_plain(self, **more: Any) -> Evaluation:
        """Return the same with more plain values."""
        return replace(self, plain={**self.plain, **more})

    def without_tables(self) -> dict[str, Any]:
        """Return what a prompt's file keeps: the plain values without tables and baselines."""
        return without_tables(self.plain)


def without_tables(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain scores without the tables of many labels, and without baselines."""
    return {key: value for key, value in scores.items() if key not in TABLES}
