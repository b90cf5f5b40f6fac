"""The curve of memory on a tiny model: points are kept, and losses and gradients are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benches import open_bench

memory = open_bench("memory")


def test_points_are_measured_once_and_set_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = [
        {"text": "a film " * (n % 3 + 1), "label": ("negative", "positive")[n % 2]}
        for n in range(8)
    ]
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in texts), "utf-8")
    asked = []

    def here(command: list[str], **_: Any) -> Any:
        budget = command[command.index("--worker") + 1]
        asked.append(budget)
        found = memory.worker("random-tiny", rows, budget, 2, 1)
        return type("Done", (), {"returncode": 0, "stdout": json.dumps(found)})

    monkeypatch.setattr(memory.subprocess, "run", here)
    out = tmp_path / "records.jsonl"
    for _ in range(2):
        memory.run("random-tiny", sst2=rows, budgets="none,900MB", batch=2, out=out)
    assert asked == ["none", "900MB"], "what is recorded is not measured again"
    plain, tight = map(json.loads, out.read_text("utf-8").splitlines())
    assert plain["losses"] == pytest.approx(tight["losses"], rel=1e-6)
    assert plain["norms"] == pytest.approx(tight["norms"], rel=1e-5)
    assert (plain["foreseen"], plain["budget"]) == (None, "none")
    assert tight["foreseen"] <= 900
    lines = capsys.readouterr().out
    assert "| 900MB |" in lines
    assert "losses and gradients' norms: at most " in lines
