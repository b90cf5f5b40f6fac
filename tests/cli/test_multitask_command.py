"""`foreword multitask`: run files of several tasks, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, World
from foreword.prompt.prompt import Prompt

Cli = Callable[..., Answer]


def run_file(world: World, folder: Path, more: str = "", tasks: str | None = None) -> Path:
    usual = f"""
tasks:
  one:
    train: {world.path("train.jsonl")}
    dev: {world.path("dev.jsonl")}
    test: {world.path("test.jsonl")}
  two:
    train: {world.path("train.jsonl")}
    rows: 10
    template: "{{text}} was"
    labels: [good= film, bad= it]
"""
    path = folder / "run.yaml"
    path.write_text(
        f"""model: {world.path("model")}
method: soft
length: 3
epochs: 1
batch-size: 8
template: "{{text}} :"
{more}
{usual if tasks is None else tasks}"""
    )
    return path


def test_every_task_has_its_prompt_and_its_line(cli: Cli, world: World, tmp_path: Path) -> None:
    path = run_file(world, tmp_path, "mixing: 2.0\n")
    said = cli("multitask", path, "--out", tmp_path / "d", "--json")
    assert said.status == 0, said.err
    found = said.json
    assert list(found["tasks"]) == ["one", "two"]
    assert found["shared"] is None
    assert found["tasks"]["one"]["test"]["rows"] == 12
    assert "test" not in found["tasks"]["two"]
    assert found["tasks"]["two"]["rows"] == 9  # ten, of which one is held back
    two = Prompt.load(tmp_path / "d" / "two.safetensors")
    assert two.task.template == "{text} was"  # type: ignore[attr-defined]
    assert two.method["multitask"]["mixing"] == 2.0
    assert "two: no dev rows given: 1 of the training rows is held back" in said.err
    shown = cli("multitask", path, "--out", tmp_path / "e", "--share", "mpt")
    assert shown.status == 0, shown.err
    assert "2 tasks in one run" in shown.out
    assert "--start" in shown.out
    table = [line for line in shown.out.splitlines() if line.startswith(("task", "one", "two"))]
    assert len(table) == 3
    assert max(map(len, table)) <= 80
    assert (tmp_path / "e" / "shared.safetensors").exists()


TWO = "tasks:\n  one: {train: a.jsonl}\n  two: {train: b.jsonl, %s}\n"
MISTAKES = {
    "no tasks": ("", "tasks: {}", "has no tasks; give 'tasks:'"),
    "a task that is none": ("", "tasks: {one: 3}", "task one: give its settings as a mapping"),
    "an unknown setting": ("", TWO % "tempalte: x", "task two: unknown setting 'tempalte'"),
    "a common one in a task": ("", TWO % "epochs: 3", "task two: 'epochs' is for all tasks"),
    "an unknown common one": ("epoch: 3", TWO % "rows: 3", "unknown setting 'epoch'"),
    "a setting of one training": ("out: p", TWO % "rows: 3", "'out' is of one task's training"),
    "no rows": ("", "tasks: {one: {template: x}}", "task one: has no training rows"),
    "a share": ("share: all", TWO % "rows: 3", "setting 'share' is 'all'"),
    "a file": ("", TWO % "rows: 3", "a.jsonl: no such file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(cli: Cli, world: World, tmp_path: Path, name: str) -> None:
    more, tasks, expected = MISTAKES[name]
    path = run_file(world, tmp_path, more, tasks)
    said = cli("multitask", path, "--out", tmp_path / "d")
    assert said.status == 2
    assert expected in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "d").exists()
