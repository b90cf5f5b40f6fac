"""`foreword train --from`: the command line of training that goes on from a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Answer, World
from foreword.prompt.prompt import Prompt

Cli = Callable[..., Answer]


def going(world: World, out: Path, *more: str | Path) -> list[str]:
    given = world.train(out, *more)
    at = given.index("--template")
    return [*given[:at], *given[at + 2 :], "--from", world.path("soft.safetensors")]


def test_old_and_new_stand_side_by_side(cli: Cli, world: World, tmp_path: Path) -> None:
    out = tmp_path / "q.safetensors"
    more = ["--replay", world.path("train.jsonl"), "--replay-share", "0.25"]
    more += ["--old-test", world.path("test.jsonl"), "--test", world.path("test.jsonl")]
    said = cli(*going(world, out, *more), "--json")
    assert said.status == 0, said.err
    found = said.json
    old = Prompt.load(world.path("soft.safetensors"))
    assert found["old"]["before"]["accuracy"] == old.scores["test"]["accuracy"]
    assert found["old"]["after"]["rows"] == 12
    assert found["new"] == found["test"]
    made = Prompt.load(out)
    assert made.task == old.task  # settings that were not given are the old prompt's
    assert made.method["source"] == world.path("soft.safetensors")
    assert made.data["replay"]["share"] == 0.25
    assert made.scores["old"] == found["old"]["after"]
    shown = cli(*going(world, out, *more))
    assert shown.status == 0, shown.err
    for line in ("old task, before", "old task, after", "new task"):
        assert line in shown.out
    assert max(map(len, shown.out.splitlines()[1:])) <= 80


def test_a_run_file_may_say_it_and_the_old_task_is_scored_without_replay(
    cli: Cli, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"from: {world.path('p.safetensors')}\nlr: 1e-3\nreplay-share: 0.2\n")
    out = tmp_path / "q.safetensors"
    arguments = ["train", "--config", str(file), "--model", world.path("model"), "--out", str(out)]
    arguments += ["--train", world.path("train.jsonl"), "--epochs", "1", "--json"]
    said = cli(*arguments)
    assert said.status == 2
    assert "--replay-share needs --replay F" in said.err
    file.write_text(f"from: {world.path('p.safetensors')}\nlr: 1e-3\n")
    said = cli(*arguments, "--old-test", world.path("test.jsonl"))
    assert said.status == 0, said.err
    assert said.json["new"] == said.json["dev"]
    assert said.json["config"]["method"]["rate"] == 1e-3


def test_fitted_thresholds_are_fitted_again_and_given_ones_stay(
    cli: Cli, world: World, tmp_path: Path
) -> None:
    def write(name: str, n: int) -> str:
        rows = [
            {"text": f"{'good' * (i % 2)} it {i}", "labels": ["good"][: i % 2]} for i in range(n)
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    given = ["train", "--model", world.path("model"), "--train", write("t.jsonl", 8)]
    given += ["--dev", write("d.jsonl", 6), "--epochs", "1"]
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    first = ["--task", "multilabel", "--method", "soft", "--length", "2", "--out", str(old)]
    assert cli(*given, *first).status == 0
    made = Prompt.load(old)
    task: Any = made.task
    assert task.fit_thresholds == "shared"
    replace(made, task=replace(task, thresholds={"good": 0.999})).save(old)
    for more, limit in (([], None), (["--thresholds", "good=0.9"], 0.9)):
        assert cli(*given, "--from", old, "--out", new, *more).status == 0
        task = Prompt.load(new).task
        assert (task.thresholds["good"] == limit) == (limit is not None)
        assert task.thresholds["good"] != 0.999
        assert task.fit_thresholds == ("shared" if limit is None else "off")


def test_without_a_model_it_goes_on_with_that_of_the_prompt(
    cli: Cli, world: World, tmp_path: Path
) -> None:
    given = going(world, tmp_path / "q.safetensors")
    at = given.index("--model")
    said = cli(*given[:at], *given[at + 2 :])
    assert said.status == 0, said.err
    assert Prompt.load(tmp_path / "q.safetensors").backbone["name"] == world.path("model")


MISTAKES = {
    "a method": (["--method", "soft"], "--method beside --from:"),
    "a preset": (["--preset", "fast"], "--preset beside --from:"),
    "a method's setting": (["--length", "3"], "--length is no setting of task classify that goes"),
    "a share of nothing": (["--replay-share", "0.2"], "--replay-share needs --replay F"),
    "no share": (["--replay", "TRAIN", "--replay-share", "1"], "--replay-share 1: give a share"),
    "a prompt over itself": (["--out", "SOFT"], "is the prompt to go on from; name another"),
    "another backbone": (
        ["--model", "OTHER"],
        "; name that one with --model, or start with a prompt of the same model",
    ),
    "no such file": (["--old-test", "none.jsonl"], "none.jsonl: no such file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(cli: Cli, world: World, tmp_path: Path, name: str) -> None:
    more, expected = MISTAKES[name]
    named = {"TRAIN": "train.jsonl", "SOFT": "soft.safetensors", "OTHER": "other"}
    words = [world.path(named[w]) if w in named else w for w in more]
    said = cli(*going(world, tmp_path / "q.safetensors", *words))
    assert said.status == 2
    assert expected in " ".join(said.err.split())
    assert not (tmp_path / "q.safetensors").exists()


@pytest.mark.parametrize("flag", ["--replay", "--old-test"])
def test_what_needs_a_prompt_says_so(cli: Cli, world: World, tmp_path: Path, flag: str) -> None:
    said = cli(*world.train(tmp_path / "q.safetensors", flag, world.path("train.jsonl")))
    assert said.status == 2
    assert f"{flag} needs --from P" in said.err
