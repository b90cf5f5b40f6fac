"""The comparison of settings: what a run is trained on and scored by, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benches import open_bench
from toys import get, rows, write

bench = open_bench("defaults")


def test_no_row_is_trained_on_and_scored(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    write(folder / "train.jsonl", rows(60))
    for by_label, count in ((True, 6), (False, 20)):
        kind = bench.Set("toy", "classify", 20, by_label)
        train, dev = bench.rows_of(kind, tmp_path, 0)
        assert len(train) == count
        assert len(dev) == 60 - count
        assert not {row.where for row in train} & {row.where for row in dev}


def test_a_run_changes_one_setting(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    write(folder / "train.jsonl", rows(60))
    kind = bench.Set("toy", "classify", 20)
    own, faster, alike = (
        bench.run(get(), kind, "soft", change, 0, tmp_path)
        for change in ({}, {"rate": 3.0}, {"rate": 1.0})
    )
    assert (own["settings"], faster["settings"]) == ({"rate": 1e-2}, {"rate": 3e-2})
    assert own["loss"] == alike["loss"] != faster["loss"]
    assert own["rows"] == [20, 40]
    json.dumps(own)


def test_the_table_compares_runs_on_the_same_rows() -> None:
    losses = (({}, 0, 0.4), ({}, 1, 0.8), ({"rate": 3.0}, 0, 0.2), ({"rate": 3.0}, 1, 0.4))
    records = [
        {
            "set": "sst2",
            "method": "soft",
            "change": change,
            "seed": seed,
            "metric": "accuracy",
            "score": 90.0 - loss,
            "loss": loss,
        }
        for change, seed, loss in losses
    ]
    records.append({**records[-1], "seed": 2})  # of which there is no run with its own settings
    table = bench.report(json.loads(json.dumps(records))).splitlines()
    assert table[2:] == ["| `soft` | rate x 3 | -50.0 (-50.0 to -50.0) | +0.3 | 2 | 2 |"]


def test_a_change_that_is_losing_has_no_more_runs() -> None:
    """Not one that is worse by what chance may do, unless it had a run on every set."""
    changes = {"clear": (1.1, 1.2, 1.1), "chance": (1.4, 0.8, 1.1), "level": (1.0, 1.02, 0.99)}
    changes["little"] = (1.01, 1.012, 1.011)
    changes["no better"] = (1.4, 0.8, 1.1, 0.9, 0.9, 1.1)
    changes["a little better"] = (1.4, 0.8, 1.0, 0.9, 0.9, 1.0)
    records = [
        {"set": "sst2", "method": "soft", "change": {"start": name}, "seed": seed, "loss": loss}
        for name, losses in changes.items()
        for seed, loss in enumerate(losses)
    ]
    own = {"set": "sst2", "method": "soft", "change": {}, "loss": 1.0}
    records += [{**own, "seed": seed} for seed in range(6)]
    losing = [name for name in changes if bench.is_losing(records, "soft", {"start": name})]
    assert losing == ["clear", "little", "no better"]
    assert not bench.is_losing(records[1:], "soft", {"start": "clear"})
    assert not bench.is_losing(records, "soft", {"start": "vocabulary"})
    assert {*bench.ORDER} == {*bench.SETS}


@pytest.mark.parametrize("method", bench.CHANGES)
def test_each_change_is_one_that_the_method_has(method: str) -> None:
    made = bench.METHODS[method]()
    for change in bench.CHANGES[method]:
        bench.replace(made, **change)


def test_what_was_begun_in_another_type_goes_on_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a change would be compared with the method's own settings in another type."""

    def run(dtype: str, kind: Any, method: str, change: Any, seed: int, data: Path) -> Any:
        own = {"set": kind.name, "method": method, "change": change, "seed": seed}
        return {**own, "loss": 1.0, "dtype": dtype}

    file = tmp_path / "defaults.jsonl"
    begun = {"set": "sst2", "method": "lora", "change": {}, "seed": 0, "loss": 1.0}  # of old
    file.write_text(json.dumps(begun) + "\n", encoding="utf-8")
    monkeypatch.setattr(bench, "RECORDS", file)
    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bench.fw, "load", lambda name, dtype: dtype)
    words = ["run", "--methods", "lora", "--sets", "sst2", "stsb", "--seeds", "0"]
    for _ in range(2):  # the second time there is nothing left to run
        bench.main([*words, "--dtype", "bfloat16"])
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [r["set"] for r in records] == ["sst2"] * 5 + ["stsb"] * 5
    assert [r.get("dtype") for r in records] == [None] + ["float32"] * 4 + ["bfloat16"] * 5
