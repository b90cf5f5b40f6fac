"""Transfer on tiny tasks: each pair from both starts, kept by run, and tables of means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from families import CAUSAL, backbone, tokenizer
from toys import rows, write

BENCH = Path(__file__).parent.parent.parent / "bench"
TASKS = ("banking77", "ag_news", "sst2", "sms_spam")


@pytest.mark.slow
def test_both_starts_of_each_pair_have_a_curve_and_are_resumed(tmp_path: Path) -> None:
    tiny = backbone(CAUSAL[0], initializer_range=0.2)
    tiny.model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    for number, task in enumerate(TASKS):
        for part, first in (("train", 100 * number), ("dev", 100 * number + 50)):
            (tmp_path / task).mkdir(exist_ok=True)
            write(tmp_path / task / f"{part}.jsonl", rows(24, first))
    out = tmp_path / "out" / "t.jsonl"
    command = [sys.executable, str(BENCH / "transfer.py"), str(tmp_path), "--out", str(out)]
    sizes = ["--seeds", "1", "--shots", "4", "--epochs", "2", "--dev-rows", "10"]
    flags = [*sizes, "--source-rows", "12", "--model", str(tmp_path / "model")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *flags, *more], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = json.loads(run("--json"))["runs"]
    assert len(found) == 6
    assert {r["start"] for r in found} == {"usual", "transferred"}
    for record in found:
        assert [step for step, _ in record["curve"]] == [0, 1, 2]
        assert all(0 <= score <= 100 for _, score in record["curve"])
    sources = {(r["source"], r["target"]) for r in found}
    assert len(sources) == 3
    kept = out.read_text()
    table = run()
    assert out.read_text() == kept, "nothing was run again"
    assert table.count("| usual |") == table.count("| transferred |") == 3
    first = found[0]["curve"]
    assert f"| usual | {' | '.join(f'{score:.1f}' for _, score in first)} |" in table
