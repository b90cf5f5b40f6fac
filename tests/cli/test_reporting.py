"""``foreword report`` and ``train --report``: the page, and what is said of wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_run_ends_in_a_page_and_nothing_is_asked_for_twice(
    world: Any, cli: Any, tmp_path: Path
) -> None:
    out = tmp_path / "own.safetensors"
    assert cli(*world.train(out, "--method", "soft", "--report")).status == 0
    page = out.with_suffix(".html").read_text("utf-8")
    assert "Is it good?" in page
    assert "Loss of each step" in page
    kept = out.with_suffix(".answers.jsonl").read_text("utf-8")
    again = cli(
        *("report", out, "--data", world.path("dev.jsonl"), "--train", world.path("train.jsonl")),
        *("--out", tmp_path / "own.html", "--sections", "quality", "changes", "--json"),
    )
    assert again.status == 0, again.err
    (said,) = again.json["prompts"]
    assert said["prompt"] == "own"
    assert "answers are right" in said["verdict"]
    assert (tmp_path / "own.answers.jsonl").read_text("utf-8") == kept


def test_a_name_with_a_dot_has_a_page_of_its_own(world: Any, cli: Any, tmp_path: Path) -> None:
    assert cli(*world.train(tmp_path / "r.1", "--method", "soft", "--report")).status == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"r.1.html", "r.1.answers.jsonl"} <= names


def test_a_run_whose_dev_rows_make_no_report_still_ends_well(
    world: Any, cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "one.jsonl").write_text('{"text": "a film", "label": "good"}\n', "utf-8")
    out = tmp_path / "own.safetensors"
    one = ("--dev", tmp_path / "one.jsonl")
    found = cli(*world.train(out, "--method", "soft", "--report", *one))
    assert found.status == 0
    assert out.exists()
    assert "no report: " in found.err
    assert not out.with_suffix(".html").exists()


def test_rows_that_cannot_be_used_are_left_out_where_asked(
    world: Any, cli: Any, tmp_path: Path
) -> None:
    rows = [*ONE, {"text": "it was", "label": "bad"}, {"text": "a", "label": "great"}]
    data, out = tmp_path / "some.jsonl", tmp_path / "some.html"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = ("report", world.path("soft.safetensors"), "--data", data, "--out", out)
    assert "'great'" in cli(*given).err
    found = cli(*given, "--skip-bad", "--sections", "quality")
    assert found.status == 0, found.err
    assert "on 5 rows" in found.out
    both = cli(
        *("report", world.path("soft.safetensors"), "--data", world.path("dev.jsonl")),
        *("--data", data, "--out", out, "--skip-bad", "--sections", "quality"),
    )
    assert both.status == 0, both.err
    assert "great" not in re.sub(r"<svg.*?</svg>", "", out.read_text("utf-8"), flags=re.DOTALL)


def test_several_prompts_on_several_sets(world: Any, cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "two.html"
    found = cli(
        *("report", world.path("p.safetensors"), world.path("soft.safetensors")),
        *("--data", world.path("dev.jsonl"), "--data", world.path("test.jsonl")),
        *("--sections", "quality", "--out", out),
    )
    assert found.status == 0, found.err
    assert found.out.count("answers are right") == 2
    assert "McNemar" in out.read_text("utf-8")


ONE = [{"text": "a film", "label": "good"}] * 4
WRONG = {
    "a folder": (["--out", "folder.html"], "is a folder"),
    "no page": (["--out", "page.pdf"], "ends in .html"),
    "nowhere": (["--out", "/dev/null/page.html"], "cannot be written"),
    "answers nowhere": (["--answers", "/dev/null/kept.jsonl"], "cannot be written"),
    "another backbone": (["--model", "other"], "was tuned on"),
    "another task": (["--data", "words.jsonl"], "no field"),
    "no rows": (["--data", "empty.jsonl"], "the file is empty"),
    "one class": (["--data", "one.jsonl"], "all 4 rows have the label 'good'"),
    "other labels": (["--data", "labels.jsonl"], "'great'"),
    "unknown section": (["--sections", "poetry"], "poetry"),
    "twice": (["p.safetensors"], "given twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str, world: Any, cli: Any, tmp_path: Path) -> None:
    flags, said = WRONG[name]
    files = {
        "words.jsonl": [{"tokens": ["a"], "tags": ["x"]}],
        "empty.jsonl": [],
        "one.jsonl": ONE,
        "labels.jsonl": [*ONE, {"text": "it", "label": "great"}],
    }
    for file, rows in files.items():
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "folder.html").mkdir()
    usual = {"--data": world.path("dev.jsonl"), "--out": str(tmp_path / "page.html")}
    given = [word for flag in usual if flag not in flags for word in (flag, usual[flag])]
    at = {f: str(tmp_path / f) for f in [*files, "page.pdf", "folder.html"]}
    at["other"] = world.path("other")
    at["p.safetensors"] = world.path("p.safetensors")
    found = cli("report", world.path("p.safetensors"), *(at.get(f, f) for f in flags), *given)
    assert (found.status, found.out) == (2, "")
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["prompt", "rows", "page"])
def test_a_file_of_another_kind_is_not_taken_for_kept_answers(
    kind: str, world: Any, cli: Any, tmp_path: Path
) -> None:
    out, mine = tmp_path / "page.html", tmp_path / "mine"
    source = {"prompt": "soft.safetensors", "rows": "test.jsonl", "page": "dev.jsonl"}[kind]
    (mine := out if kind == "page" else mine).write_bytes(Path(world.path(source)).read_bytes())
    before = mine.read_bytes()
    asked = ("--data", world.path("dev.jsonl"), "--out", out, "--answers", mine)
    found = cli("report", world.path("p.safetensors"), *asked)
    assert (found.status, found.out) == (2, "")
    why = "is the page to write" if kind == "page" else "is there already and holds no kept answers"
    assert f"{mine}: {why}; name another file\n" in found.err
    assert len(found.err.splitlines()) == 1
    assert mine.read_bytes() == before
