"""Tables and pictures for other programs: each sign means itself, and endings decide formats."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from foreword.display import console
from foreword.display.formats import in_latex, to_csv, to_latex, to_markdown
from foreword.display.pictures import draw_front, front
from foreword.errors import UserError

HEADER = ["method", "score"]
NASTY = ["a_b & 50% {x} $1 #2 ~^\\ <|>", "-1.5 (-2.0--1.0)"]


def entry(method: str, size: int, score: float | None, **varied: Any) -> dict[str, Any]:
    interval = None if score is None else [score - 2, score + 1]
    return {"method": method, "bytes": size, "score": score, "interval": interval, "varied": varied}


def test_csv_is_read_back_as_it_was() -> None:
    rows = [["a,b", 1.25], ['say "x"\n', None]]
    assert list(csv.reader(io.StringIO(to_csv(HEADER, rows)))) == [
        HEADER, ["a,b", "1.25"], ['say "x"\n', ""],
    ]  # fmt: skip


def test_latex_shows_every_sign() -> None:
    table = to_latex(HEADER, [NASTY])
    assert table.splitlines()[:4] == [
        "\\begin{tabular}{lr}", "\\toprule", "method & score \\\\", "\\midrule",
    ]  # fmt: skip
    assert table.splitlines()[4] == (
        r"a\_b \& 50\% \{x\} \$1 \#2 \textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}\textbar{}\textgreater{} & -1.5 (-2.0--1.0) \\"
    )
    assert in_latex("87.8 (85.5-90.0) ± 1") == r"87.8 (85.5--90.0) $\pm$ 1"


def test_markdown_keeps_a_cell_a_cell() -> None:
    table = to_markdown(["a", "b|c"], [["x|y", "*1*"], ["two\nlines", ""]])
    assert table.splitlines() == [
        "| a | b\\|c |", "| --- | ---: |", "| x\\|y | \\*1\\* |", "| two\\\\nlines |  |",
    ]  # fmt: skip


def test_the_front_has_what_no_other_beats() -> None:
    found = [
        entry("big", 900, 80.0), entry("none", 0, 30.0), entry("small", 10, 70.0),
        entry("worse", 20, 60.0), entry("same", 10, 70.0), entry("failed", 0, None),
        entry("tie", 950, 80.0),
    ]  # fmt: skip
    assert [each["method"] for each in front(found)] == ["none", "small", "big"]


@pytest.mark.parametrize("name", ["f.png", "f.svg", "f.pdf"])
def test_a_picture_has_the_format_of_its_ending_and_the_same_bytes(
    name: str, tmp_path: Path
) -> None:
    found = [entry("zero-shot", 0, 30.0), entry("soft", 5000, 70.0, length=5), entry("x", 9, None)]
    path = draw_front(found, "accuracy", tmp_path / "new" / name)
    head = {"f.png": b"\x89PNG", "f.svg": b"<?xml", "f.pdf": b"%PDF"}[name]
    first = path.read_bytes()
    assert first.startswith(head)
    assert draw_front(found, "accuracy", path).read_bytes() == first
    if name == "f.svg":
        assert b"best by size" in first or b"<path" in first


def test_a_dollar_sign_is_one(tmp_path: Path) -> None:
    found = [entry("soft", 5000, 70.0, template="{text} costs $5_$ $\\foo$ :")]
    assert draw_front(found, "accuracy", tmp_path / "f.svg").exists()


def test_without_matplotlib_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"needs matplotlib: pip install 'foreword\[plot\]'"):
        draw_front([], "accuracy", tmp_path / "f.png")


def test_half_of_a_surrogate_pair_is_an_escape_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", shown)
    console.emit({"text": "ü \ud83d"})
    shown.flush()
    assert shown.buffer.getvalue().decode() == '{"text": "ü \\ud83d"}\n'
