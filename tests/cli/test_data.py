"""The commands on files of rows: what they print, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_mistakes import refused

Cli = Callable[..., Any]
FINE = [("a film", "good"), ("no film", "bad"), ("an old film", "good"), ("a dull one", "bad")]


def write(path: Path, *given: tuple[str, str]) -> Path:
    rows = (json.dumps({"text": text, "label": label}) + "\n" for text, label in given)
    path.write_text("".join(rows), "utf-8")
    return path


def test_check_says_what_is_there(tmp_path: Path, cli: Cli) -> None:
    train = write(tmp_path / "train.jsonl", *FINE)
    test = write(tmp_path / "test.jsonl", ("A FILM", "good"), ("it", "bad"))
    answer = cli("data", "check", "--train", train, "--test", test)
    assert answer.status == 0
    assert f"{test}:1 (as {train}:1)" in answer.out
    assert "warning: also in another split in test: 1" in answer.out
    assert max(map(len, answer.out.splitlines()), default=0) <= 80 or str(train) in answer.out
    told = cli("data", "check", train, test, "--json").json
    assert (told["errors"], told["warnings"]) == (0, 1)
    assert told["splits"][str(train)]["labels"] == {"bad": 2, "good": 2}
    assert cli("data", "check", train).out.splitlines()[-1] == "nothing is wrong"
    assert "rows are compared by text\n" in answer.out


def test_check_ends_with_2_on_errors(tmp_path: Path, cli: Cli) -> None:
    path = write(tmp_path / "f.jsonl", *FINE, (" ", "good"))
    answer = cli("data", "check", path, "--json")
    assert answer.status == 2
    assert answer.json["problems"][0]["places"] == [f"{path}:5"]
    assert f"foreword: {path}:5: empty; 1 kind of error in all" in answer.err


def test_check_counts_tokens_of_a_model(world: Any, tmp_path: Path, cli: Cli) -> None:
    path = write(tmp_path / "f.jsonl", *FINE)
    told = cli(
        "data", "check", path, "--model", world.path("model"), "--max-length", "2", "--json"
    ).json
    assert told["splits"][str(path)]["length"]["unit"] == "tokens"
    assert told["problems"][0]["kind"] == "long"


def test_check_for_a_task_without_a_model(tmp_path: Path, cli: Cli) -> None:
    train = write(tmp_path / "t.jsonl", *FINE * 3, ("x", "good "))
    dev = write(tmp_path / "d.jsonl", ("an unseen one", "fine"))
    answer = cli("data", "check", "--train", train, "--dev", dev, "--task", "classify", "--json")
    told = {(each["kind"], each["split"]): each for each in answer.json["problems"]}
    assert (answer.status, told["refused", "dev"]["count"]) == (2, 1)
    assert told["refused", "dev"]["places"][0].startswith(f"{dev}:1: unknown label 'fine'; ")
    assert told["labels alike", "train"]["level"] == "warning"
    assert told["few rows of a class", "train"]["places"] == ["'good ' has 1"]
    line = refused_in(cli("data", "check", train, "--task", "classify", "--template", "{txt}"))
    assert line.startswith(f"foreword: {train}:1: no field 'txt'")
    assert "name it with --columns txt=COLUMN; 1 kind of error in all" in line
    assert cli("data", "check", train, "--task", "score").status == 2
    other = write(tmp_path / "o.jsonl", ("a film", "1"), ("A film", "2"))
    assert cli("data", "check", other).status == 2  # one text, two labels
    for task in (["score"], ["generate", "--prompt-field", "text", "--completion-field", "label"]):
        assert cli("data", "check", other, "--task", *task).out.endswith("nothing is wrong\n")
    assert "--task clasify: unknown" in cli("data", "check", train, "--task", "clasify").err
    named = cli(
        "data", "check", train, "--task", "classify", "--labels", "good=-1", "bad", "--json"
    )
    assert named.json["problems"][0]["places"][0].startswith(f"{train}:13: unknown label 'good '")
    file = tmp_path / "words.yaml"
    file.write_text("good: good\nbad: bad\n", "utf-8")
    told = cli("data", "check", train, "--task", "classify", "--labels", f"@{file}", "--json").json
    assert told["problems"] == named.json["problems"]
    none = cli("data", "check", train, "--task", "classify", "--labels", "@none.yaml")
    assert "none.yaml: cannot be read" in refused_in(none)


def refused_in(answer: Any) -> str:
    assert answer.status == 2
    return str(answer.err.splitlines()[-1])


def test_check_for_a_task_on_a_model_says_what_train_says(
    world: Any, tmp_path: Path, cli: Cli
) -> None:
    train = write(tmp_path / "t.jsonl", *FINE * 3)
    flags = ["--template", "{text} :", "--labels", "good=film", "bad=film"]
    told = cli("data", "check", train, "--task", "classify", "--model", world.path("model"), *flags)
    trained = cli(*world.train(tmp_path / "p", "--train", str(train), *flags))
    why = refused_in(trained).removeprefix("foreword: ")
    assert "share the word" in why
    assert refused_in(told) == f"foreword: {why}; 1 kind of error in all; mend the rows"
    short = ["--template", "{text} :", "--max-length", "3", "--json"]
    fine = cli("data", "check", train, "--task", "classify", "--model", world.path("model"), *short)
    assert fine.status == 0
    told = cli(*world.train(tmp_path / "p.safetensors", "--train", str(train), *short[:-1]))
    (cut,) = [each["count"] for each in fine.json["problems"] if each["kind"] == "cut"]
    assert f"{cut} of 12 training rows were too long and were cut" in told.err


def test_check_names_the_delimiter_that_is_not_the_files_own(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text;label\na;x\nb;y\n")
    answer = cli("data", "check", path)
    assert answer.status == 0
    assert f"{path}: is read with a semicolon between cells" in answer.out
    assert "semicolon" not in cli("data", "check", path, "--delimiter", "semicolon").out
    path.write_text("text~label\na~x\nb~y\n")
    answer = cli("data", "check", path)
    assert f"{path}:2: the only column 'text~label' holds '~' in all rows" in answer.out
    assert "holds '~'" not in cli("data", "check", path, "--delimiter", "~").out
    path.write_text("text\na~x\nb~y\n")
    assert "holds '~'" not in cli("data", "check", path).out


def test_clean_writes_what_is_right_and_a_dry_run_nothing(tmp_path: Path, cli: Cli) -> None:
    path = write(tmp_path / "f.jsonl", *FINE, ("A film!", "good"), ("cafe\u0301", "good"))
    out = tmp_path / "g.jsonl"
    answer = cli("data", "clean", path, "--out", out, "--dry-run")
    assert answer.status == 0
    assert f"dropped: duplicate: 1 ({path}:5)" in answer.out
    assert f"{out} would keep 5 of 6 rows, compared by text" in answer.out
    assert not out.exists()
    told = cli("data", "clean", path, "--out", out, "--json").json
    assert told["kept"] == 5
    assert json.loads(out.read_text("utf-8").splitlines()[-1])["text"] == "caf\u00e9"
    refused(cli("data", "clean", path, "--out", out), f"{out}: is there already", "--force")
    other = write(tmp_path / "o.jsonl", ("no film", "good"))
    again = cli("data", "clean", path, "--out", out, "--without", other, "--force", "--json").json
    assert again["changes"]["dropped: in another file"] == {"rows": 1, "places": [f"{path}:2"]}


def test_split_writes_files_that_training_takes(world: Any, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "parts"
    answer = cli("data", "split", world.path("train.jsonl"), "--out", out, "--per-label", "4")
    assert answer.status == 0
    sizes = {path.stem: len(path.read_text().splitlines()) for path in out.iterdir()}
    assert sizes == {"train": 8, "dev": 8, "test": 8}
    train, dev = (str(out / f"{name}.jsonl") for name in ("train", "dev"))
    trained = cli(*world.train(tmp_path / "p.safetensors", "--train", train, "--dev", dev))
    assert trained.status == 0, trained.err
    told = cli(
        "data",
        "split",
        train,
        "--out",
        tmp_path / "more",
        "--dev",
        "0.25",
        "--test",
        "0.25",
        "--json",
    ).json
    assert {name: each["rows"] for name, each in told.items()} == {"train": 4, "dev": 2, "test": 2}


def test_no_old_part_is_left_beside_a_new_split(world: Any, tmp_path: Path, cli: Cli) -> None:
    words = ("data", "split", world.path("train.jsonl"), "--out", tmp_path)
    assert cli(*words).status == 0
    assert cli(*words, "--test", "0", "--force").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.jsonl", "train.jsonl"]


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "check nothing": (["check"], ["give files of rows to check"]),
    "check twice": (["check", "{f}", "{f}"], ["f.jsonl: is given twice"]),
    "check no file": (["check", "{d}/g.jsonl"], ["g.jsonl: no such file", "did you mean"]),
    "check a field": (["check", "{f}", "--fields", "txet"], ["f.jsonl:1: no field 'txet'", "text"]),
    "clean onto itself": (
        ["clean", "{f}", "--out", "{f}"],
        ["f.jsonl: holds the rows that are read"],
    ),
    "clean all away": (
        ["clean", "{f}", "--out", "{d}/o.jsonl", "--without", "{f}"],
        ["f.jsonl: no row would be left"],
    ),
    "clean without another column": (
        ["clean", "{f}", "--out", "{d}/o.jsonl", "--without", "{d}/te.csv"],
        ["te.csv:2: no field 'text' to compare by", "sentence", "--fields"],
    ),
    "split onto an old test": (
        ["split", "{f}", "--out", "{d}/old", "--test", "0"],
        ["old/test.jsonl: is there already"],
    ),
    "split onto files": (["split", "{f}", "--out", "{d}/there"], ["train.jsonl: is there already"]),
    "split onto itself": (
        ["split", "{d}/there/train.jsonl", "--out", "{d}/there", "--force"],
        ["train.jsonl: holds the rows that are read"],
    ),
    "split by no label": (
        ["split", "{f}", "--out", "{d}/o", "--label-field", "lable"],
        ["f.jsonl:1: no field 'lable' to part by; did you mean 'label'?"],
    ),
    "split by no group": (
        ["split", "{f}", "--out", "{d}/o", "--group", "who"],
        ["f.jsonl:1: missing field 'who'"],
    ),
    "split twice over": (
        ["split", "{f}", "--out", "{d}/o", "--per-label", "1", "--dev", "0.1"],
        ["--per-label says how large dev is"],
    ),
    "split in shares of all": (
        ["split", "{f}", "--out", "{d}/o", "--dev", "0.6", "--test", "0.6"],
        ["--dev 0.6 --test 0.6: shares"],
    ),
    "split too few": (
        ["split", "{f}", "--out", "{d}/o", "--per-label", "9"],
        ["f.jsonl: class 'good' has 10 rows, too few for 9"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name: str, tmp_path: Path, cli: Cli) -> None:
    given = [(f"text {n}", ("good", "bad")[n % 2]) for n in range(20)]
    path = write(tmp_path / "f.jsonl", *given)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "train.jsonl").write_text("kept")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "test.jsonl").write_text("kept")
    (tmp_path / "te.csv").write_text("sentence,label\ntext 1,good\n")
    arguments, parts = MISTAKES[name]
    filled = [word.format(f=path, d=tmp_path) for word in arguments]
    before = sorted(tmp_path.rglob("*"))
    refused(cli("data", *filled), *parts)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there" / "train.jsonl").read_text() == "kept"


TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes", "weight": 0}]
ANSWERS_REFUSED = {
    "multilabel": ({"text": "a", "labels": "['warm',"}, 'field "labels" is a list written as text'),
    "multilabel twice": ({"text": "a", "labels": ["x", "x"]}, "label 'x' stands twice"),
    "multilabel none": ({"text": "a", "labels": ["none"]}, "stands for no label at all"),
    "tag": ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words and 1 tags"),
    "tag bio": ({"tokens": ["a", "b"], "tags": ["B-X", "I-Y"]}, "tag 2 is 'I-Y' after 'B-X'"),
    "tag blank": ({"tokens": ["a", " "], "tags": ["O", "O"]}, "word 2 is empty"),
    "rank": ({"history": "a", "candidates": ["x", "y"], "answer": "z"}, "not among the candidates"),
    "rank one": (
        {"history": "a", "candidates": ["x"], "answer": "x"},
        "1 candidate to choose from",
    ),
    "chat": ({"messages": TALK}, "the last turn has weight 0"),
    "answer": ({"context": "a", "question": "b", "answers": ["c"]}, "is not in the passage"),
    "relate": ({"text": "a", "head": "b", "tail": "a", "label": "x"}, "does not occur in the text"),
}


@pytest.mark.parametrize("case", ANSWERS_REFUSED)
def test_answers_are_checked_without_a_model(case: str, tmp_path: Path, cli: Cli) -> None:
    row, line = ANSWERS_REFUSED[case]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row) + "\n")
    answer = cli("data", "check", path, "--task", case.split()[0])
    assert line in refused_in(answer), answer.err
    assert refused_in(answer).startswith(f"foreword: {path}:1: ")


def test_labels_of_several_that_the_training_has_not_seen(tmp_path: Path, cli: Cli) -> None:
    train, dev = tmp_path / "t.jsonl", tmp_path / "d.jsonl"
    for task, fields in (("multilabel", ("text", "labels")), ("tag", ("tokens", "tags"))):
        train.write_text(json.dumps({fields[0]: "a b", fields[1]: ["x", "y"]}) + "\n")
        dev.write_text(json.dumps({fields[0]: "a b", fields[1]: ["x", "z"]}) + "\n")
        answer = cli("data", "check", train, dev, "--task", task)
        assert f"{dev}:1: unknown label 'z'" in refused_in(answer)


def test_a_list_that_is_cut_off_is_named_though_no_task_is(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "t.csv"
    rows = ["text,label,more", "\"[laughs, cries] a film\",'warm',\"['a']\""]
    rows += ["it,\"['warm',\",\"['a', 'b\""]
    path.write_text("\n".join(rows) + "\n")
    answer = cli("data", "check", path, "--json")
    (found,) = [each for each in answer.json["problems"] if each["kind"] == "broken list"]
    assert found["places"] == [f"{path}:3 'label'", f"{path}:3 'more'"]
