"""Rows that cannot be used: the commands name the flag that leaves them out, and leave them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_comparison import command, here  # noqa: F401  (a fixture)
from test_mistakes import refused

from foreword.data.row import Row
from foreword.tasks.answer import Answer
from foreword.tasks.multilabel import Multilabel
from foreword.tasks.score import Score
from foreword.tasks.tag import Tag
from test_unnamed import LABELLED, WRITTEN
from toys import rows, write

SHAPES = {**LABELLED, **WRITTEN}
Cli = Callable[..., Any]
SKIP = "or leave such rows out with --skip-bad"


def with_bad(path: Path, *bad: dict[str, Any], count: int = 12) -> Path:
    return write(path, [*rows(count), *(Row(fields, "") for fields in bad)])


def test_eval_leaves_out_labels_that_the_prompt_has_not(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    data = with_bad(
        tmp_path / "d.jsonl", {"text": "a", "label": "ugly"}, {"text": "", "label": "bad"}
    )
    call = ("eval", world.path("p.safetensors"), "--data", data)
    refused(cli(*call), f'{data}:14: field "text" is empty', SKIP)
    one = with_bad(tmp_path / "e.jsonl", {"text": "a", "label": "ugly"})
    refused(cli(*call[:-1], one), f"{one}:13: unknown label 'ugly'", SKIP)
    found = cli(*call, "--skip-bad", "--json")
    assert found.json["rows"] == 12
    assert f"{data}:13: unknown label 'ugly'" in found.err
    assert f'{data}:14: field "text" is empty' in found.err
    assert cli(*call, "--skip-bad", "--rows", "5", "--json").json["rows"] == 5
    refused(cli(*call, "--rows", "14"), f"{data}:")


def test_the_flag_is_named_where_a_command_has_it(world: Any, cli: Cli, tmp_path: Path) -> None:
    data = with_bad(tmp_path / "d.jsonl", {"text": " ", "label": "bad"})
    line = f'{data}:13: field "text" is empty; fill it or remove the row, {SKIP}'
    prompt = world.path("p.safetensors")
    refused(cli("predict", prompt, "--data", data), line)
    refused(cli(*world.train(tmp_path / "o.safetensors", "--train", data)), line)
    split = cli("data", "split", data, "--out", tmp_path / "s", "--per-label", "3")
    assert "--skip-bad" not in split.err
    only = write(tmp_path / "e.jsonl", [Row({"text": "", "label": "x"}, "")])
    said = cli("predict", prompt, "--data", only, "--skip-bad")
    assert (said.status, SKIP in said.err) == (2, False)


def test_training_leaves_out_answers_that_cannot_be_read(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    scores = [Row({**r.fields, "label": n % 4 + 0.5}, "") for n, r in enumerate(rows(12))]
    data = write(tmp_path / "d.jsonl", [*scores, Row({"text": "a", "label": "n/a"}, "")])
    train = world.train(tmp_path / "o.safetensors", "--train", data, "--dev", data)
    train += ["--task", "score"]
    refused(cli(*train), f"{data}:13: field \"label\" is 'n/a', expected a number", SKIP)
    made = cli(*train, "--skip-bad", "--low", "0", "--high", "3.5", "--json")
    assert made.status == 0, made.err
    assert made.json["dev"]["rows"] == 12
    assert made.err.count(f"{data}:13") == 2  # of the training rows, and of the dev rows
    narrow = cli(*train, "--skip-bad", "--low", "0", "--high", "3", "--json")
    assert narrow.json["dev"]["rows"] == 9
    assert "3.5 is outside the range of 0 to 3" in narrow.err


def test_training_leaves_out_dev_and_test_rows_of_other_labels(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    data = with_bad(tmp_path / "d.jsonl", {"text": "a", "label": "ugly"})
    train = world.train(tmp_path / "o.safetensors", "--dev", data)
    train += ["--test", str(data)]
    refused(cli(*train), f"{data}:13: unknown label 'ugly'", SKIP)
    made = cli(*train, "--skip-bad", "--json").json
    assert (made["dev"]["rows"], made["test"]["rows"]) == (12, 12)


def test_several_tasks_leave_out_dev_and_test_rows_of_other_labels(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    data = with_bad(tmp_path / "d.jsonl", {"text": "a", "label": "ugly"})
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model: {world.path('model')}\nmethod: soft\nlength: 2\nepochs: 1\n"
        f"template: '{{text}} :'\ntrain: {world.path('train.jsonl')}\ntasks:\n  two: {{rows: 10}}\n"
        f"  one: {{dev: {data}, test: {data}, skip-bad: true}}\n"
    )
    made = cli("multitask", file, "--out", tmp_path / "made", "--json")
    assert made.status == 0, made.err
    one = made.json["tasks"]["one"]
    assert (one["dev"]["rows"], one["test"]["rows"]) == (12, 12)


@pytest.mark.usefixtures("here")
def test_comparisons_leave_out_bad_rows(world: Any, cli: Cli, tmp_path: Path) -> None:
    data = with_bad(tmp_path / "d.jsonl", {"text": "", "label": "bad"}, count=8)
    test = with_bad(tmp_path / "t.jsonl", {"label": "bad"}, count=6)
    out = tmp_path / "c.jsonl"
    call = command(world, out, "--data", data, "--test", test, "--methods", "zero-shot")
    call = [*call, "--json"]
    assert cli(*call).status == 2
    found = cli(*call, "--skip-bad")
    assert found.status == 0, found.err
    assert f'{data}:9: field "text" is empty' in found.err
    assert f"{test}:7: missing field 'text'" in found.err
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert found.json["methods"][0]["score"] is not None, lines


@pytest.mark.parametrize("name", SHAPES)
def test_every_task_leaves_out_a_row_that_lacks_what_it_reads(
    world: Any, cli: Cli, tmp_path: Path, name: str
) -> None:
    good = [dict(SHAPES[name](n)) for n in range(12)]
    first = next(iter(good[0]))
    bad = {**good[0], first: [] if isinstance(good[0][first], list) else ""}
    data, out = tmp_path / "d.jsonl", tmp_path / "p.safetensors"
    data.write_text("".join(json.dumps(row) + "\n" for row in [*good, bad]))
    fields = {"translate": ("en", "de"), "summarize": ("text", "summary")}.get(name)
    task = ["--task", name.split()[0], "--model", world.path("model"), "--method", "soft"]
    task += ["--source-field", fields[0], "--target-field", fields[1]] if fields else []
    task += ["--max-new-tokens", "3"] if name in WRITTEN else []
    files = ["--train", data, "--dev", data, "--epochs", "1", "--out", out]
    made = cli("train", *task, *files, "--skip-bad", "--json")
    assert made.status == 0, made.err
    assert made.json["dev"]["rows"] == 12
    found = cli("eval", out, "--data", data, "--skip-bad", "--json")
    assert found.status == 0, found.err
    assert found.json["rows"] == 12


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        (Score(), {"label": "3"}, {"label": True}),
        (Multilabel(), {"labels": "a, b"}, {"labels": {"a": 1}}),
        (Multilabel(), {"labels": []}, {"labels": "[a, b]"}),
        (Tag(), {"tokens": "a b", "tags": "A B"}, {"tokens": "a b", "tags": [1, 2]}),
        (Answer(), {"context": "a", "answers": "a"}, {"context": "a", "answers": "b"}),
    ],
)
def test_what_no_task_can_read(task: Any, good: dict[str, Any], bad: dict[str, Any]) -> None:
    from foreword.errors import UserError

    task.check_answer(Row(good, "f:1"))
    with pytest.raises(UserError, match=r"^f:2: "):
        task.check_answer(Row(bad, "f:2"))
