"""What comes of making prompts anew: for each the old score, the new one, and which is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from foreword.display.retuned import cells
from foreword.html import html_table

Outcome = Literal["kept", "worse", "same model", "failed"]
Start = Literal["old", "own"]


@dataclass(frozen=True)
class Remade:
    """A prompt that was to be made anew.

    ``outcome`` is "kept" where the new prompt was written, "worse" where its score is lower than
    that of the old one beyond chance, "same model" where the old one was tuned on this very model,
    so that it was copied, and "failed", for a ``reason``. ``gain`` is the mean difference of
    the rows' scores with its 95% interval, ``low`` to ``high``; None where the old model is not
    there any more. ``start`` is "old" where the old numbers were gone on from.
    """

    file: str
    outcome: Outcome
    metric: str | None = None
    old: float | None = None
    new: float | None = None
    by_row: str | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    start: Start | None = None
    reason: str | None = None


@dataclass(frozen=True, repr=False)
class Retuned:
    """The prompts of a folder on another model: those that were kept are in the folder ``out``."""

    model: str
    out: str
    prompts: Sequence[Remade]

    def count(self, outcome: Outcome) -> int:
        """Return how many prompts had an outcome."""
        return sum(each.outcome == outcome for each in self.prompts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them."""
        return {
            "model": self.model,
            "out": self.out,
            "prompts": [asdict(each) for each in self.prompts],
        }

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with a row for each prompt."""
        import pandas

        return pandas.DataFrame([asdict(each) for each in self.prompts])

    def __repr__(self) -> str:
        outcomes = ("kept", "worse", "same model", "failed")
        told = [f"{n} {name}" for name in outcomes if (n := self.count(name))]  # type: ignore[arg-type]
        return f"Retuned({', '.join(told)}; {self.out})"

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return html_table(*cells([asdict(each) for each in self.prompts]))
