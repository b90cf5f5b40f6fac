"""The comparison of searches: what is run, at random too, and what is reported."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benches import open_bench
from foreword.prompt_search.search import search
from foreword.reporter import SILENT
from toys import TASK, get, rows, write

bench, reported = open_bench("search"), open_bench("search_report")


def test_random_search_begins_with_nothing_known() -> None:
    given: Any = {"train": rows(40), "dev": rows(20, 100), "trials": 2, "epochs": 1, "seed": 0}
    with bench.at_random():
        made = search(get(), TASK, "head", **given, head_start="random", report=SILENT)
    usual = search(get(), TASK, "head", **{**given, "trials": 1}, report=SILENT)
    assert usual.best.settings["rate"] == pytest.approx(1e-3)
    assert all(each.settings["rate"] != pytest.approx(1e-3) for each in made.trials)
    ended = {each.number: 10.0 * each.number for each in made.trials}
    about = bench.about(made, ended)
    assert about["curve"][-1][1] == pytest.approx(made.best.score, abs=1e-4)
    assert about["first_prompt"] == about["curve"][0][0]


@pytest.mark.parametrize("system", ["best", pytest.param("search", marks=pytest.mark.slow)])
def test_a_run_is_a_record(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    write(folder / "train.jsonl", rows(30))
    write(folder / "test.jsonl", rows(6, 200))
    monkeypatch.setattr(bench.fw, "load", lambda name: get())
    ticks = itertools.count()  # every look at the clock takes a hundredth of a second
    clock = SimpleNamespace(process_time=lambda: next(ticks) / 100)
    monkeypatch.setattr(bench, "time", clock)
    made = bench.run(bench.Set("toy", "classify", 20), system, 0, 0.03, tmp_path)
    assert len(made["right"]) == made["test_rows"] == 6
    assert made["score"] == pytest.approx(100 * made["right"].count("1") / 6, abs=0.01)
    assert made["minutes"] == (None if system == "best" else 0.03)
    assert made.get("trials", 0) == (0 if system == "best" else made["trials"])
    assert (made.get("first_prompt") is None) == (system == "best")
    json.dumps(made)


def test_rows_are_those_of_the_seed_and_runs_are_paired(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    write(folder / "train.jsonl", rows(40))
    write(folder / "test.jsonl", rows(9, 200))
    kind = bench.Set("toy", "classify", 5, by_label=True)
    train, test = bench.rows_of(kind, tmp_path, 0)
    assert (len(train), len(test)) == (10, 9)
    runs = (("best", 0, "1100"), ("search", 0, "1110"), ("best", 1, "1000"))
    records = [
        {
            "task": {"name": "sst2"},
            "system": system,
            "seed": seed,
            "metric": "accuracy",
            "score": 25.0 * right.count("1"),
            "seconds": 20.4,
            "method": "prefix",
            "right": right,
        }
        for system, seed, right in runs
    ]
    table = reported.table(json.loads(json.dumps(records))).splitlines()
    assert table[2] == (
        "| SST-2, 256 rows | 50.0, 25.0 | 20, 20 |  | 75.0 |  | prefix | "
        "+25.0; **+25.0** (+0.0 to +75.0) |  |"
    )


def test_the_picture_has_a_line_for_each_run(tmp_path: Path) -> None:
    record = {"task": {"name": "sst2"}, "system": "search", "minutes": 5.0, "seed": 0}
    curves = ([(30.0, 80.0), (90.0, 85.0)], [(40.0, 70.0)], [])
    seeds = [{**record, "seed": seed, "curve": curve} for seed, curve in enumerate(curves)]
    reported.draw(seeds, tmp_path / "one.svg")
    reported.draw([{**record, "curve": curve} for curve in curves[::-1]], tmp_path / "two.svg")
    one, two = (tmp_path / f"{name}.svg" for name in ("one", "two"))
    colour = reported.COLOURS["search"]
    assert one.read_text().count(colour) > two.read_text().count(colour) > 0, "the last of a seed"
