"""Tags, relations and many labels from the command line: files in, tables out, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Answer, World

Cli = Callable[..., Answer]
ROOT = Path(__file__).parent.parent.parent
TAGGED = [
    {"tokens": ["a", "film", "it", "was"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]},
    {"tokens": "good film", "tags": "O B-PER"},
    {"tokens": ["it", "film", "it"], "tags": ["O", "B-LOC", "O"]},
]
RELATED = [
    {"text": "film was bad", "head": "film", "tail": "bad", "label": label}
    for label in ("Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other")
]
MANY = [
    {"text": "a film", "labels": ["art", "war"]},
    {"text": "it was", "labels": []},
    {"text": "bad film", "labels": "war"},
]
GIVEN: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "tag": (TAGGED, ["span F1", "accuracy", "macro F1", "span precision", "PER"], "span_f1"),
    "relate": (RELATED, ["official F1", "MCC", "calibration error"], "official_f1"),
    "multilabel": (MANY, ["micro F1", "macro F1", "exact match", "war"], "micro_f1"),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def training(world: World, task: str, file: Path, out: Path, *more: str) -> list[str]:
    flags = {"--task": task, "--model": world.path("model"), "--train": file, "--dev": file}
    given = [str(word) for pair in flags.items() for word in pair if pair[0] not in more]
    usual = ["--method", "soft", "--epochs", "1"] if "--method" not in more else ["--epochs", "1"]
    return ["train", *given, *usual, "--out", str(out), *more]


@pytest.mark.parametrize("task", GIVEN)
def test_from_rows_to_answers(world: World, cli: Cli, tmp_path: Path, task: str) -> None:
    rows, shown, headline = GIVEN[task]
    file, out = write(tmp_path / "rows.jsonl", rows * 3), tmp_path / "p.safetensors"
    made = cli(*training(world, task, file, out, "--test", str(file), "--json"))
    assert made.status == 0, made.err
    assert headline in made.json["dev"]
    assert headline in made.json["test"]
    scores = cli("eval", out, "--data", file, "--baselines", "--json").json
    assert scores[headline] == made.json["test"][headline]
    assert headline in scores["baselines"]["zero-shot"]
    printed = cli("eval", out, "--data", file, "--baselines").out
    assert all(len(line) <= 80 for line in printed.splitlines()[1:])
    for name in shown:
        assert name in printed
    found = cli("predict", out, "--data", file, "--json").json["predictions"]
    assert len(found) == 9
    lines = cli("predict", out, "--data", file).out.splitlines()
    assert len(lines) == 9
    if task == "multilabel":
        added = cli("labels", "add", out, "new", "--out", tmp_path / "more.safetensors").out
        assert added.endswith("; 3 labels\n")  # art, war and it: "none" is no label of a row
    if task == "tag":
        assert found[0]["tags"] == rows[0]["tags"]
        assert len(found[0]["predicted_tags"]) == len(found[0]["chances"]) == 4
        assert lines[0].split() == found[0]["predicted_tags"]
        assert len(cli("predict", out, "a good film", "--json").json["predictions"][0]["tags"]) == 3


@pytest.mark.parametrize("task", GIVEN)
@pytest.mark.parametrize("method", ["head", "prefix+head", "lora"])
def test_every_kind_of_method_learns_them(
    world: World, cli: Cli, tmp_path: Path, task: str, method: str
) -> None:
    file, out = write(tmp_path / "rows.jsonl", GIVEN[task][0] * 2), tmp_path / "p.safetensors"
    made = cli(*training(world, task, file, out, "--method", method, "--json"))
    assert made.status == 0, made.err
    assert cli("eval", out, "--data", file, "--json").json["rows"] == 6


@pytest.mark.parametrize("task", GIVEN)
def test_the_examples_run_file(world: World, cli: Cli, tmp_path: Path, task: str) -> None:
    """As it stands, but on a tiny model, a few rows and one epoch, and from another folder."""
    settings = yaml.safe_load((ROOT / "examples" / task / "run.yaml").read_text("utf-8"))
    rows = str(ROOT / settings["train"]), str(ROOT / settings["dev"])
    out = tmp_path / "p.safetensors"
    made = cli(
        *("train", "--config", ROOT / "examples" / task / "run.yaml"),
        *("--model", world.path("model"), "--train", rows[0], "--dev", rows[1]),
        *("--epochs", "1", "--dev-rows", "3", "--out", out, "--json"),
    )
    assert made.status == 0, made.err
    assert GIVEN[task][2] in made.json["dev"]


@pytest.mark.slow
def test_class_weights_and_headline(world: World, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    flags = ("--class-weights", "balanced", "--headline", "mcc", "--method", "soft", "--json")
    made = cli(*world.train(out, *flags))
    assert made.status == 0, made.err
    assert set(made.json["dev"]) == {"mcc", "rows"}
    assert made.json["config"]["task"]["class_weights"] == {"bad": 1.0, "good": 1.0}
    shown = cli("eval", out, "--data", world.path("test.jsonl")).out
    for name in ("accuracy", "MCC", "AUROC", "calibration error"):
        assert name in shown
    compared = cli(
        *("compare", "--methods", "zero-shot,soft", "--data", world.path("train.jsonl")),
        *("--test", world.path("test.jsonl"), "--model", world.path("model"), "--epochs", "1"),
        *("--template", "{text} :", "--headline", "macro_f1", "--out", str(tmp_path / "c.jsonl")),
    )
    assert compared.status == 0, compared.err
    assert "macro F1" in compared.out


MISTAKES: dict[str, tuple[str, dict[str, Any], list[str], str]] = {
    "too few tags": ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, [], "2 words and 1 tags"),
    "an empty word": ("tag", {"tokens": ["a", ""], "tags": ["O", "O"]}, [], "word 2 is empty"),
    "I without B": ("tag", {"tokens": ["a"], "tags": ["I-PER"]}, [], "tag 1 is 'I-PER' after 'O'"),
    "no words": ("tag", {"tokens": [], "tags": []}, [], "is empty; fill it"),
    "no list": ("tag", {"tokens": 3, "tags": ["O"]}, [], 'field "tokens" is a number'),
    "too long": (
        *("tag", {"tokens": ["film"] * 90, "tags": ["O"] * 90}),
        *(["--max-length", "64"], "too long for 64 tokens"),
    ),
    "head not there": (
        *("relate", {"text": "a", "head": "b", "tail": "a", "label": "Other"}, []),
        "head 'b' does not occur in the text",
    ),
    "an unknown relation": (
        *("relate", {"text": "a", "head": "a", "tail": "a", "label": "Cause-Efect(e1,e2)"}),
        *(["--labels", "Cause-Effect(e1,e2)", "Other"], "did you mean 'Cause-Effect(e1,e2)'?"),
    ),
    "labels of no list": ("multilabel", {"text": "a", "labels": 1}, [], 'field "labels" is a num'),
    "a label of no letters": (
        *("multilabel", {"text": "a", "labels": ["war", " "]}, []),
        'field "labels[1]" is empty',
    ),
    "the label of no label": (
        *("multilabel", {"text": "a", "labels": ["none"]}, []),
        "'none', which stands for no label at all; write []",
    ),
    "half a character in a label": (
        *("multilabel", {"text": "a", "labels": ["war\ud83d"]}, []),
        'field "labels[0]" holds half a character',
    ),
    "a tag of no letters": ("tag", {"tokens": ["a"], "tags": [""]}, [], '"tags[0]" is empty'),
    "half a character in a word": (
        *("tag", {"tokens": ["a\ud83d"], "tags": ["O"]}, []),
        "holds half a character",
    ),
    "a label twice": (
        *("multilabel", {"text": "a", "labels": ["war", "war"]}, []),
        "label 'war' stands twice",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_row_that_is_wrong(world: World, cli: Cli, tmp_path: Path, name: str) -> None:
    task, row, more, message = MISTAKES[name]
    good = GIVEN[task][0] if "--labels" not in more else [RELATED[0], RELATED[2]]
    file, out = write(tmp_path / "rows.jsonl", [*good, row]), tmp_path / "p.safetensors"
    answer = cli(*training(world, task, file, out, *more))
    assert answer.status == 2, answer.err
    line = answer.err.splitlines()[-1]
    assert f"rows.jsonl:{len(good) + 1}: " in line
    assert message in line
    assert not out.exists()
    made = cli(*training(world, task, file, out, *more, "--skip-bad", "--json"))
    assert made.status == 0, made.err
    assert made.json["dev"]["rows"] == len(good)


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("tag", ["--word-template", "[soft:2]{word}:"], "put it in --template"),
        ("tag", ["--word-template", "{wrod}:"], "no field 'wrod'"),
        ("tag", ["--label-field", "x"], "--label-field is no setting of task tag"),
        ("multilabel", ["--thresholds", "war"], "--thresholds 'war': write label=number"),
        ("multilabel", ["--thresholds", "war=2"], "2 of 'war' is no probability"),
        ("multilabel", ["--headline", "mcc"], "--headline mcc: unknown"),
        ("classify", ["--headline", "f1"], "--headline f1: unknown"),
        ("classify", ["--class-weights", "even"], "class"),
    ],
)
def test_a_setting_that_is_wrong(
    world: World, cli: Cli, tmp_path: Path, task: str, flags: list[str], message: str
) -> None:
    rows = GIVEN[task][0] if task in GIVEN else [{"text": "a", "label": x} for x in "ab"]
    file = write(tmp_path / "rows.jsonl", rows)
    answer = cli(*training(world, task, file, tmp_path / "p.safetensors", *flags))
    assert answer.status == 2, answer.err
    assert message in answer.err.splitlines()[-1]


def test_tags_cannot_be_fused(world: World, cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", TAGGED)
    for name in "pq":
        out = tmp_path / f"{name}.safetensors"
        assert cli(*training(world, "tag", file, out)).status == 0
    paths = [tmp_path / "p.safetensors", tmp_path / "q.safetensors"]
    answer = cli("compose", *paths, "--how", "ensemble", "--out", tmp_path / "e.safetensors")
    assert answer.status == 2
    assert "prompts of task tag cannot answer together" in answer.err
