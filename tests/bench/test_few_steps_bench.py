"""How many steps few rows need: what a run makes, and what is reported and not run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benches import open_bench
from toys import get, rows, write

bench = open_bench("few_steps")


def test_runs_differ_in_their_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sst2").mkdir()
    write(tmp_path / "sst2" / "train.jsonl", rows(50))
    monkeypatch.setattr(bench, "STEPS", (2, 6))
    monkeypatch.setattr(bench, "OTHERS", 18)
    monkeypatch.setattr(bench.fw, "load", lambda *given, **options: get("llama"))
    asked = ["run", "--data", tmp_path, "--sets", "sst2", "--seeds", "0", "--out", tmp_path / "o"]
    bench.main([str(word) for word in asked])
    bench.main([str(word) for word in asked])
    records = [json.loads(line) for line in (tmp_path / "o").read_text().splitlines()]
    assert [each["steps"] for each in records] == [2, 6]
    assert [each["rows"] for each in records] == [[32, 18]] * 2
    assert records[0]["loss"] != records[1]["loss"]
    capsys.readouterr()
    bench.main(["report", "--out", str(tmp_path / "o")])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_table_compares_with_the_fewest_steps() -> None:
    own = {"score": 90.0, "seconds": 10}
    records = [
        {**own, "set": name, "seed": seed, "steps": steps, "loss": loss * (1 + seed)}
        for name in ("sst2", "e2e")
        for seed in (0, 1)
        for steps, loss in ((8, 0.4), (40, 0.2))
    ]
    table = bench.report(records).splitlines()
    assert table[2] == "| e2e | 8 | 90.0, 90.0 | +0 | 10 |"
    assert table[3] == "| e2e | 40 | 90.0, 90.0 | -50 | 10 |"
    assert table[-1] == "| all | 40 | | -50 (-50 to -50) | |"
