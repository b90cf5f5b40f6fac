"""``eval --unknown`` and ``--min-probability``, of ``eval`` and ``predict``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.backbone.backbone import Backbone
from foreword.data.row import Row
from toys import get, rows, toy_run, write

Cli = Callable[..., Any]


def test_what_belongs_to_no_label_is_told_apart_and_left_blank(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "load", lambda name, **_: get())
    prompt, kept = tmp_path / "p.safetensors", tmp_path / "kept.safetensors"
    toy_run(None).save(prompt)
    data, strange = write(tmp_path / "d.jsonl", rows(20, 200)), tmp_path / "u.jsonl"
    strange.write_text("".join(json.dumps({"text": f"it {n} it"}) + "\n" for n in range(8)))
    wrong = cli("predict", prompt, "a film", "--min-probability", "auto")
    assert (wrong.status, "--min-probability auto: the prompt keeps" in wrong.err) == (2, True)
    shown = cli("eval", prompt, "--data", data, "--unknown", strange, "--out", kept)
    assert shown.status == 0, shown.err
    for part in ("AUROC, known against unknown", "rows that are answered", f"{kept}: the prompt"):
        assert part in shown.out
    assert max(map(len, shown.out.splitlines()[1:-1])) <= 80
    asked = ["--data", data, "--unknown", strange, "--json"]
    found = cli("eval", kept, *asked).json["abstaining"]
    assert not found["fitted"]
    assert found["unknown_rows"] == 8
    answer = cli("predict", kept, "--data", data, "--min-probability", "auto", "--json").json
    assert answer["blank"] == round(20 * (1 - found["coverage"] / 100))
    both = cli("eval", kept, "--data", data, "--min-probability", "0.5", "--out", kept)
    assert "--out keeps the probability that is fitted" in both.err
    alone = cli("eval", kept, "--data", data, "--windows", "4", "--unknown", strange)
    assert "leave out --unknown" in alone.err


def test_unknown_rows_need_no_answers_where_bad_rows_are_left_out(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    strange = [{"text": "it", "label": "spam"}, {"text": "and it"}, {"text": " "}]
    unknown = write(tmp_path / "u.jsonl", [Row(fields, "") for fields in strange])
    data = write(tmp_path / "d.jsonl", rows(20, 200))
    call = ("eval", world.path("p.safetensors"), "--data", data, "--unknown", unknown)
    found = cli(*call, "--skip-bad", "--json")
    assert found.status == 0, found.err
    assert found.json["abstaining"]["unknown_rows"] == 2
    assert f'{unknown}:3: field "text" is empty' in found.err


def test_the_flag_that_asks_for_one_label_is_named(world: Any, cli: Cli, tmp_path: Path) -> None:
    scores = [Row({**row.fields, "label": n % 4}, "") for n, row in enumerate(rows(8))]
    data, prompt = write(tmp_path / "d.jsonl", scores), tmp_path / "p.safetensors"
    made = cli(*world.train(prompt, "--train", data, "--dev", data, "--task", "score"))
    assert made.status == 0, made.err
    for flag, value in {"--unknown": data, "--out": prompt, "--min-probability": "0.5"}.items():
        found = cli("eval", prompt, "--data", data, flag, value)
        assert (found.status, f"{flag} is for tasks that give a row one" in found.err) == (2, True)
