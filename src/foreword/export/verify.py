"""What was exported is tried in the other program, on rows of the user's or on short texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.base import NotVerified, Verified, VerifiedFormat
from foreword.prompt.prompt import Prompt

TEXTS = (
    "The parcel came a week late and the box was open.",
    "Thank you, that was quick and very kind!",
    "How do I change the address on my account?",
    "It rained all day, so the match was moved to Sunday evening.",
)


def verify(
    target: VerifiedFormat, prompt: Prompt, path: Path, rows: Sequence[Row] | None = None
) -> Verified | NotVerified:
    """Answer rows, or some short texts, with what is written at ``path`` and with the prompt."""
    bound = prompt.bound
    if rows is None:
        rows = [
            Row({name: TEXTS[(n + m) % len(TEXTS)] for m, name in enumerate(bound.fields)}, f"{n}")
            for n in range(len(TEXTS))
        ]
        try:
            bound.check(rows, answers=False)
        except UserError:  # such as one that chooses among a row's candidates
            return NotVerified("rows of this task hold more than texts; give some")
    else:
        bound.check(rows, answers=False)
    return target.verify(prompt, path, rows)
