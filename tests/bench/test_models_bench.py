"""The table over models: what a run measures, what is not run again, how a page is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import char_model
from benches import open_bench
from foreword.errors import UserError
from toys import rows, write

bench = open_bench("models")


def test_a_run_measures_score_time_memory_and_size(tmp_path: Path) -> None:
    model = char_model.save(tmp_path / "model")
    for part, first in (("train", 0), ("dev", 100), ("test", 200)):
        write(tmp_path / f"{part}.jsonl", rows(12, first))
    settings = {"method": "head", "epochs": 1, "batch_size": 2, "threads": 1, "rows": 8}
    about = {"model": "tiny", "data": "toy", "seed": 0, "settings": settings}
    bench.perform(model, str(tmp_path), about, tmp_path)
    found = json.loads((tmp_path / "answer.json").read_text())
    assert set(bench.KEPT) <= found.keys() | about.keys()
    assert (found["rows"], found["method"]) == (12, "head")
    assert found["interval"][0] <= found["score"] <= found["interval"][1]
    assert 0 < found["loaded"] <= found["peak"]
    assert found["step"] > 0
    assert found["bytes"] > 0


def test_what_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def measured(model: str, folder: str, about: dict[str, Any]) -> dict[str, Any]:
        ran.append((model, folder, about["seed"]))
        score = 80.0 + about["seed"]
        sizes = {"step": 0.5, "request": 20.0, "bytes": 250_000, "peak": 2e9, "loaded": 1e9}
        return {"score": score, "interval": [70.0, 90.0], **sizes}

    monkeypatch.setattr(bench, "measured", measured)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{bench.MARKS[0]}\nold\n{bench.MARKS[1]}\nafter\n")
    usual = {"data": ["toy=folder"], "out": tmp_path / "out.jsonl", "page": page}
    bench.run(["one"], **usual)
    bench.run(["one", "two=path"], seeds=2, **usual)
    assert ran == [
        ("one", "folder", 0),
        ("path", "folder", 0),
        ("one", "folder", 1),
        ("path", "folder", 1),
    ]
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    score = "80.5 (70.0 to 90.0) seeds 80.0, 81.0"
    assert f"| two | toy | {score} | 0.50 | 2.0 (1.0) | 20 | 0.25 |" in lines
    page.write_text("no marks")
    with pytest.raises(UserError, match="has no <!-- models -->"):
        bench.write_table(page, "")
