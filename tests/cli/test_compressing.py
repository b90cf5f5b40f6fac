"""The command that presses a text: what it prints, and what it says of mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Answer, World

Cli = Callable[..., Answer]
WORDS = ["good", "bad", "fine", "film", "it", "was", "a", "and", "so", "as", "the", "is"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = " ".join(WORDS[(5 * i + i * i // 7) % len(WORDS)] for i in range(60))
    (tmp_path / "manual.txt").write_text(text, "utf-8")
    rows = [
        {"prompt": f"{WORDS[i % 12]} {WORDS[i % 5]} {WORDS[i % 7]}", "completion": WORDS[i % 3]}
        for i in range(12)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "questions.jsonl").write_text(lines, "utf-8")
    return tmp_path


def asked(world: World, folder: Path, *more: str | Path) -> list[str | Path]:
    usual: dict[str, str | Path] = {
        "--text": folder / "manual.txt",
        "--model": world.path("model"),
        "--length": "6",
        "--epochs": "1",
        "--questions": folder / "questions.jsonl",
        "--max-new-tokens": "4",
        "--out": folder / "c.safetensors",
    }
    given = dict(zip(more[::2], more[1::2], strict=True))
    pairs = {**usual, **given}
    return ["compress", *(part for pair in pairs.items() for part in pair if pair[1] != "-")]  # type: ignore[list-item]


def test_a_table_and_a_file_that_predicts(world: World, cli: Cli, folder: Path) -> None:
    answer = cli(*asked(world, folder))
    assert answer.status == 0, answer.err
    assert max(map(len, answer.out.splitlines())) <= max(80, len(str(folder)) + 60)
    for name in ("full text", "cartridge", "cut to its length", "none of it", "KL", "top-1"):
        assert name in answer.out
    found = cli("predict", folder / "c.safetensors", "film it", "--model", world.path("model"))
    assert found.status == 0, found.err


def test_one_json_object(world: World, cli: Cli, folder: Path) -> None:
    answer = cli(*asked(world, folder), "--json")
    assert answer.status == 0, answer.err
    for key in ("kl", "kl_truncated", "kl_none", "top1", "answers", "answers_full", "bytes"):
        assert isinstance(answer.json[key], float | int)
    assert answer.json["length"] == 6
    assert answer.json["reference"] == "given"


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--text", "none.txt", "none.txt: cannot be read"),
        ("--length", "500", "no more than the 500 positions"),
        ("--length", "0", "--length 0: give 1 or more"),
        ("--sink", "6", "--sink 6: give from 0 to 5"),
        ("--template", "film", "template"),
        ("--questions", "none.jsonl", "none.jsonl"),
        ("--epochs", "0", "epochs"),
        ("--max-new-tokens", "0", "max_new_tokens is 0"),
    ],
)
def test_a_mistake_is_one_line(
    world: World, cli: Cli, folder: Path, flag: str, value: str, says: str
) -> None:
    answer = cli(*asked(world, folder, flag, value))
    assert answer.status == 2, answer.out
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert not (folder / "c.safetensors").exists()


def test_questions_of_ones_own_are_never_written_over(world: World, cli: Cli, folder: Path) -> None:
    """The model keeps those that it asks itself beside the prompt, under such a name."""
    own = folder / "c.questions.jsonl"
    (folder / "questions.jsonl").rename(own)
    before = own.read_bytes()
    for more in (("--test", own), ()):
        answer = cli(*asked(world, folder, "--questions", "-", *more))
        assert answer.status == 2, answer.out
        assert "c.questions.jsonl" in answer.err
        assert answer.err.count("\n") <= 2
        assert own.read_bytes() == before


def test_wrong_test_rows_are_told_before_the_model_asks(
    world: World, cli: Cli, folder: Path
) -> None:
    (folder / "test.jsonl").write_text('{"question": "it"}\n', "utf-8")
    answer = cli(*asked(world, folder, "--questions", "-", "--test", folder / "test.jsonl"))
    assert answer.status == 2, answer.out
    assert "test.jsonl:1: " in answer.err
    assert not (folder / "c.questions.jsonl").exists()
