"""What is written is tried in the other program: which rows it gets, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from composed import prompt
from foreword.data.row import Row
from foreword.errors import UserError
from foreword.export.base import NotVerified, Verified
from foreword.export.verify import TEXTS, verify
from foreword.methods.prefix import Prefix
from foreword.prompt.prompt import Prompt
from foreword.tasks.rank import Rank


@dataclass(frozen=True)
class Copied:
    """A program that runs prompt files as they are, and knows two rows at most."""

    suffix: ClassVar[str] = ".copied"

    def write(self, prompt: Prompt, path: Path) -> Path:
        return prompt.save(path)

    def verify(self, prompt: Prompt, path: Path, rows: Sequence[Row]) -> Verified | NotVerified:
        if len(rows) > 2:
            return NotVerified(f"{len(rows)} rows are too many")
        again = Prompt.load(path, prompt.on).predict([row.fields["text"] for row in rows])
        same = [a == b.fields.get("label", a) for a, b in zip(again, rows, strict=True)]
        return Verified("copier 1.0", len(rows), sum(same) / len(same), 0.25)


def test_without_rows_it_is_tried_on_short_texts(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3))
    written = Copied().write(tuned, tmp_path / "p")
    assert verify(Copied(), tuned, written) == NotVerified(f"{len(TEXTS)} rows are too many")


def test_rows_of_a_task_that_reads_more_than_texts_must_be_given(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3), task=Rank(template="{text} :"))
    found = verify(Copied(), tuned, Copied().write(tuned, tmp_path / "p"))
    assert isinstance(found, NotVerified)
    assert "give some" in found.reason


def test_rows_that_cannot_be_answered_are_refused(tmp_path: Path) -> None:
    tuned = prompt(Prefix(length=3))
    written = Copied().write(tuned, tmp_path / "p")
    with pytest.raises(UserError, match=r"x:1: .*text"):
        verify(Copied(), tuned, written, [Row({"other": "a"}, "x:1")])
