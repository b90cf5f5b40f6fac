"""Problems with rows: each kind, how bad it is and why, and where it is.

An *error* is what a training refuses, or what no answer can be right for. A *warning* is what
makes scores worse, or better than they should be, and may be meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foreword.grammar import counted
from foreword.html import html_table

WHY: dict[str, tuple[Literal["error", "warning"], str]] = {
    "unreadable": ("error", "such as a line with other cells than the header, or no valid JSON"),
    "missing field": ("error", "the first row has it; a training stops at such a row"),
    "empty": ("error", "a training stops at a field without text"),
    "label conflict": ("error", "the same text with other labels; not all of them can be right"),
    "label not in train": ("error", "a label that the training has never seen is refused"),
    "wrong shape": ("error", "the row is not of the shape that the first row shows"),
    "half a character": ("error", "half of a surrogate pair; no tokenizer takes it"),
    "broken list": (
        "warning",
        'a list that was cut off, or whose texts are in no quotes; write it as ["a", "b"]',
    ),
    "refused": ("error", "a training of this task stops at it"),
    "labels alike": ("warning", "to a training they are different labels; write each in one way"),
    "few rows of a class": ("warning", "fewer than 5; it is hardly learned, and hardly scored"),
    "other delimiter": ("warning", "name the sign between cells with --delimiter if it is not it"),
    "quotes left": (
        "warning",
        "a cell is quoted from its first sign on; take out the space",
    ),
    "cell over several lines": ("warning", "a quote that stands alone joins rows to one cell"),
    "special token": ("warning", "a model takes it for an end of a text or a turn, not for text"),
    "cut": ("warning", "beyond --max-length, or an answer beyond --max-new-tokens: not read"),
    "not NFC": ("warning", "letters written as several signs become other tokens"),
    "control character": ("warning", "signs that are not seen and are read all the same"),
    "duplicate": ("warning", "said before in this split, but for case, spacing, punctuation"),
    "also in another split": ("warning", "what was seen in training is no test; scores flatter"),
    "almost in another split": ("warning", "four words in five are the same; scores may flatter"),
    "label in train only": ("warning", "the other splits do not say whether it is learned"),
    "long": ("warning", "what is too long for the model or --max-length is cut"),
    "imbalance": ("warning", "accuracy says little of a class so rare; look at macro F1"),
}
"""Each kind of problem: how bad it is, and why."""


@dataclass(frozen=True)
class Problem:
    """A kind of problem, where it is (``FILE:LINE``, or a label), and in which split."""

    kind: str
    split: str
    places: tuple[str, ...]

    @property
    def level(self) -> Literal["error", "warning"]:
        """Whether it is an error or a warning."""
        return WHY[self.kind][0]


@dataclass(frozen=True)
class Checked:
    """What the splits hold, by their names, and the problems that were found."""

    splits: Mapping[str, Mapping[str, Any]]
    problems: Sequence[Problem]

    def __repr__(self) -> str:
        sizes = [f"{name}: {counted(each['rows'], 'row')}" for name, each in self.splits.items()]
        said = [f"{p.level}: {p.kind} in {p.split}: {len(p.places)}" for p in self.problems]
        return f"Checked({'; '.join([*sizes, *(said or ['nothing is wrong'])])})"

    def _repr_html_(self) -> str:
        splits = [
            (name, each["rows"], len(each.get("labels", {})) or "", ", ".join(each["fields"]))
            for name, each in self.splits.items()
        ]
        found = html_table(("", "rows", "labels", "fields"), splits)
        if not self.problems:
            return f"{found}<p>nothing is wrong</p>"
        header = ("", "problem", "in", "rows", "why", "the first")
        return found + html_table(
            header,
            [
                (p.level, p.kind, p.split, len(p.places), WHY[p.kind][1], p.places[0])
                for p in self.problems
            ],
        )

    def noting(self, kind: str, places: Mapping[str, tuple[str, ...]]) -> Checked:
        """Return the same with places of one more problem, by their splits."""
        more = [Problem(kind, split, found) for split, found in places.items()]
        return Checked(self.splits, in_order([*self.problems, *more]))


REFUSALS = (
    *("missing field", "empty", "wrong shape", "half a character", "label not in train"),
    *("refused", "long"),
)
"""Problems that the rules of a task say better, where it is known."""


def with_refusals(
    found: Checked, refused: Mapping[str, Sequence[str]], cut: Mapping[str, Sequence[str]]
) -> Checked:
    """Put the errors by which a training would refuse rows of each split in the place of guesses.

    ``cut`` are the places of rows that are too long, in splits of which that is known.
    """
    kept = [each for each in found.problems if each.kind not in REFUSALS]
    kept += [each for each in found.problems if each.kind == "long" and each.split not in cut]
    kept += [Problem("refused", name, tuple(errors)) for name, errors in refused.items()]
    kept += [Problem("cut", name, tuple(places)) for name, places in cut.items()]
    return Checked(found.splits, in_order(kept))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems that have places, errors first."""
    order = list(WHY)
    return sorted((p for p in problems if p.places), key=lambda each: order.index(each.kind))
