"""The ``score`` task from the command line: numbers in, numbers out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Answer, World
from foreword.cli.settings import compared
from foreword.cli.words import parse_anchors
from foreword.errors import UserError
from foreword.tasks.score import Score
from toys import rows

Cli = Callable[..., Answer]


def numbered(path: Path, labels: list[Any]) -> Path:
    pairs = zip(rows(len(labels)), labels, strict=True)
    lines = [json.dumps({"text": row.fields["text"], "label": label}) for row, label in pairs]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_from_rows_to_answers(world: World, cli: Cli, tmp_path: Path) -> None:
    file, out = numbered(tmp_path / "n.jsonl", [0.5, 3, 4.2, 2] * 3), tmp_path / "p.safetensors"
    more = ("--task", "score", "--method", "soft", "--train", file, "--dev", file, "--test", file)
    made = cli(*world.train(out, *more, "--json"))
    assert made.status == 0, made.err
    assert made.json["dev"]["negative MSE"] < 0
    assert made.json["test"]["mae"] > 0
    assert made.json["config"]["task"]["high"] == 5
    scores = cli("eval", out, "--data", file, "--baselines", "--json").json
    assert scores["rmse"] == made.json["test"]["rmse"]
    shown = cli("eval", out, "--data", file, "--baselines").out
    assert all(len(line) <= 80 for line in shown.splitlines()[1:])  # the first has paths
    for name in ("Pearson", "Spearman", "RMSE", "MAE", f"{scores['mae']:.2f}"):
        assert name in shown
    (answer,) = cli("predict", out, "a good film", "--json").json["predictions"]
    assert set(answer) == {"text", "score"}
    assert cli("predict", out, "a good film").out == f"{answer['score']:.2f}\n"
    assert cli("info", out, "--json").json["task"]["name"] == "score"


@pytest.mark.parametrize(
    ("label", "more", "message"),
    [
        ("good", (), "n.jsonl:2: field \"label\" is 'good', expected a number"),
        ("0,5", (), "is '0,5', expected a number with a point, not a comma; mend the row"),
        (None, (), 'n.jsonl:2: field "label" is empty'),
        (7, ("--high", "5"), "n.jsonl:2: 7 is outside the range of 0 to 5"),
        (1, ("--low", "4", "--high", "4"), "4 is not below 4; give --low and --high"),
        (1, ("--anchors", "a=b"), "--anchors 'a=b': write number, or word=number"),
        (1, ("--anchors", "a=0", "--high", "5"), "high is 5, but the anchors end at 0"),
        (1, ("--labels", "a", "b"), "--labels is no setting of task score"),
    ],
)
def test_mistakes(
    label: Any, more: tuple[str, ...], message: str, world: World, cli: Cli, tmp_path: Path
) -> None:
    file = numbered(tmp_path / "n.jsonl", [0, label, 3, 4])
    out = tmp_path / "p.safetensors"
    answer = cli(*world.train(out, "--task", "score", "--train", file, "--dev", file, *more))
    assert answer.status == 2
    assert message in answer.err.splitlines()[-1]
    assert not out.exists()


def test_anchors_are_words_of_numbers() -> None:
    assert parse_anchors(["0", "2.5", "good=5"]) == {" 0": 0, " 2.5": 2.5, " good": 5}
    made = compared({"task": "score", "anchors": ["bad=0", "good=4"], "low": 0.0}, ["soft"])
    assert made.task == Score(low=0, anchors={" bad": 0, " good": 4})
    with pytest.raises(UserError, match="two numbers"):
        parse_anchors(["a=1", "a=2"])
