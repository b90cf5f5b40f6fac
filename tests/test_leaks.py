"""Rows that are trained on and scored on: counted, told, and known again from a file alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.data.duplicates import MARK, marked, marks
from foreword.data.row import Row
from foreword.evaluation.evaluate import evaluate, with_scores
from foreword.prompt.file import read_file
from foreword.prompt.prompt import Prompt
from foreword.training import provenance
from toys import Lines, get, rows, toy_run


def again(some: list[Row]) -> list[Row]:
    """The same rows but for case, spacing and punctuation."""
    return [
        Row({**row.fields, "text": f" {row.fields['text'].upper()} ! "}, row.where) for row in some
    ]


def test_marks_tell_rows_and_hold_no_text() -> None:
    known = marks(rows(12), ["text"])
    assert marked(again(rows(12)), ["text"], known) == 12
    assert marked(rows(12, 50), ["text"], known) == 0
    assert marked([], ["text"], known) == marked(rows(3), ["text"], "") == 0
    assert len(known) == 12 * MARK * 8 // 6
    assert marks(again(rows(12))[::-1], ["text"]) == known


def test_dev_rows_in_train_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    dev = [*rows(4, 100), *again(rows(2))]
    made = toy_run(tmp_path / "p.safetensors", dev=dev, report=Lines(told))
    assert "2 of 6 dev rows are in train too: their score flatters" in told
    assert made.data["dev"]["in_train"] == 2
    told.clear()
    assert toy_run(None, report=Lines(told)).data["dev"]["in_train"] == 0
    assert not any("in train too" in line for line in told)


def test_a_file_knows_its_rows(tmp_path: Path) -> None:
    toy_run(tmp_path / "p.safetensors")
    prompt = Prompt.load(tmp_path / "p.safetensors", get())
    assert "marks" not in read_file(tmp_path / "p.safetensors").facts()["data"]
    test = [*rows(5, 300), *again(rows(3))]
    assert evaluate(prompt, test)["in_train"] == 3
    assert evaluate(prompt, rows(5, 300))["in_train"] == 0
    assert evaluate(prompt, test, train=rows(1))["in_train"] == 1
    kept = with_scores(prompt, "test", evaluate(prompt, test))
    assert kept.scores["test"]["in_train"] == 3


def test_of_many_rows_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MARKED", 11)
    made = toy_run(None)
    assert "marks" not in made.data
    assert "in_train" not in evaluate(made, rows(4))
    assert evaluate(made, rows(4), train=rows(2))["in_train"] == 2
