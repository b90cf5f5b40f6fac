"""The command that writes new rows, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_mistakes import refused

from foreword.data.read import read_rows
from foreword.prompt.prompt import Prompt
from toys import rows, write

Cli = Callable[..., Any]
FEW = ["--count", "4", "--max-new-tokens", "4", "--epochs", "1", "--tries", "30"]


def test_rows_are_written_and_taken(world: Any, tmp_path: Path, cli: Cli) -> None:
    prompt, out = tmp_path / "p.safetensors", tmp_path / "new.jsonl"
    made = cli(*world.train(prompt, "--method", "head", "--lr", "0.05", "--epochs", "6"))
    assert made.status == 0, made.err
    data = ["--data", world.path("train.jsonl")]
    answer = cli("augment", prompt, *data, "--out", out, *FEW, "--json")
    assert answer.status == 0, answer.err
    assert "new.writer.log.jsonl hold texts of your rows" in answer.err
    bare = cli("augment", prompt, *data, "--out", tmp_path / "bare.jsonl", *FEW, "--no-texts")
    assert (bare.status, "hold texts" in bare.err) == (0, False), bare.err
    kept = answer.json["kept"]
    assert set(kept) == {"good", "bad"}
    assert len(out.read_text("utf-8").splitlines()) == sum(kept.values()) > 0
    checked = cli("data", "check", world.path("train.jsonl"), out, "--json").json
    assert not any(each["kind"] == "also in another split" for each in checked["problems"])
    more = ["--dev", world.path("dev.jsonl"), "--test", world.path("test.jsonl")]
    table = out.with_suffix(".csv")
    shown = cli("augment", prompt, *data, "--out", table, *FEW, *more)
    assert shown.status == 0, shown.err
    assert [row.fields for row in read_rows(table)] == [row.fields for row in read_rows(out)]
    head, *lines = shown.out.splitlines()
    assert head.split()[1:3] == ["texts", "sampled;"]
    assert lines[1] == "scores on the test rows, 95% intervals"
    assert [line.split("  ")[0] for line in lines[3:5]] == ["without", "with the new rows"]
    assert all(len(line) <= 80 for line in lines[1:])


@pytest.mark.parametrize("lost", ["training", "source"])
def test_a_prompt_that_cannot_be_tuned_again_is_refused_first(
    lost: str, world: Any, tmp_path: Path, cli: Cli
) -> None:
    found = Prompt.load(world.path("soft.safetensors"))
    method = {k: v for k, v in {**found.method, "source": "p"}.items() if k != "training"}
    prompt = replace(
        found, method=method if lost == "training" else {**found.method, "source": "p"}
    )
    file = prompt.save(tmp_path / "p.safetensors")
    data = ["--data", world.path("train.jsonl"), "--dev", world.path("dev.jsonl")]
    answer = cli("augment", file, *data, "--out", tmp_path / "new.jsonl", *FEW)
    refused(answer, "does not say all of how it was trained", "give one made by train alone")
    assert list(tmp_path.iterdir()) == [file]


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "a test without dev": (["--test", "{d}/f.jsonl"], ["--test needs --dev"]),
    "onto its own rows": (["--out", "{d}/f.jsonl"], ["f.jsonl: holds the rows that are read"]),
    "no rows": (["--count", "0"], ["--count 0: give 1 or more"]),
    "no sampling": (["--temperature", "0"], ["--temperature 0: texts differ only above 0"]),
    "no tries": (["--tries", "0"], ["--tries 0: give 1 or more"]),
    "a label that it has not": (
        ["--data", "{d}/other.jsonl"],
        ["other.jsonl:1: unknown label 'ham'"],
    ),
    "dev rows of another label": (
        ["--dev", "{d}/other.jsonl"],
        ["other.jsonl:1: unknown label 'ham'"],
    ),
    "a writer that reads alone": (
        ["--writer", "{w}/masked"],
        ["cannot write; give a model that can with --writer"],
    ),
    "another method": (["--method", "lora"], ["--method"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name: str, world: Any, tmp_path: Path, cli: Cli) -> None:
    write(tmp_path / "f.jsonl", rows(6))
    (tmp_path / "other.jsonl").write_text('{"text": "a film", "label": "ham"}\n')
    flags, parts = MISTAKES[name]
    given = {"--data": str(tmp_path / "f.jsonl"), "--out": str(tmp_path / "new.jsonl")}
    given |= dict(zip(flags[::2], flags[1::2], strict=True))
    words = [w.format(d=tmp_path, w=world.folder) for pair in given.items() for w in pair]
    refused(cli("augment", world.path("soft.safetensors"), *words), *parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "other.jsonl"]
