"""What comes of a search: the prompt, its trials, and what the best score is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from foreword.display.trials import cells
from foreword.evaluation.evaluation import Evaluation
from foreword.html import html_table
from foreword.prompt.prompt import Prompt
from foreword.prompt_search.tried import Tried


@dataclass(frozen=True, repr=False)
class Searched:
    """The best prompt of a search. ``metric`` names the dev score, ``best`` is its trial.

    The best of many scores is high by luck too. ``held`` are its scores on rows that no trial has
    seen, which are free of that; None for a search that was stopped before. ``about`` says what
    was searched, and on what. ``importances`` say how much of the variance of scores each
    parameter explains.
    """

    prompt: Prompt
    metric: str
    best: Tried
    trials: Sequence[Tried]
    held: Evaluation | None
    about: Mapping[str, Any]
    importances: Mapping[str, float] = field(default_factory=dict)

    @property
    def luck(self) -> float | None:
        """How far the dev score of the winner lies above its score on the rows held back.

        None where they are no scores of one kind.
        """
        if self.held is None or self.metric not in self.held or self.best.score is None:
            return None
        return self.best.score - float(self.held[self.metric])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``--json`` prints them."""
        return {
            **self.about,
            "metric": self.metric,
            "best": asdict(self.best),
            "held_back": None if self.held is None else self.held.without_tables(),
            "luck": self.luck,
            "importances": dict(self.importances),
            "trials": [asdict(each) for each in self.trials],
        }

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame of the trials, a column for each setting."""
        import pandas

        rows = []
        for each in self.trials:
            row = asdict(each)
            rows.append({**row, **row.pop("settings")})
        return pandas.DataFrame(rows).drop(columns="settings")

    def __repr__(self) -> str:
        return (
            f"Searched({self.best.method}: dev {self.metric} {self.best.score:.2f}, "
            f"trials={len(self.trials)})"
        )

    def _repr_html_(self) -> str:
        """Show the table of trials in a notebook."""
        return html_table(*cells([asdict(each) for each in self.trials], self.metric))
